-- Types: the status, and the rows of functions that return one of their own.

-- Only the first and the last status are returned yet.
CREATE TYPE @extschema@.presence_status AS ENUM ('active', 'idle', 'busy', 'inactive');

-- start_session()
CREATE TYPE @extschema@.presence_session AS (
    session_id pg_catalog.uuid,
    session_token pg_catalog.text,
    expires_at pg_catalog.timestamptz,
    heartbeat_ms pg_catalog.int4,
    timeout_ms pg_catalog.int4,
    server_time pg_catalog.timestamptz
);

-- presence_of(), online_users()
CREATE TYPE @extschema@.presence_user AS (
    user_id pg_catalog.uuid,
    user_key pg_catalog.text,
    status @extschema@.presence_status,
    is_online pg_catalog.bool,
    last_seen pg_catalog.timestamptz,
    session_count pg_catalog.int4
);

-- presence_cursor()
CREATE TYPE @extschema@.presence_position AS (
    epoch pg_catalog.text,
    seq pg_catalog.int8
);

-- cleanup_sessions()
CREATE TYPE @extschema@.presence_cleanup AS (
    deactivated pg_catalog.int8,
    deleted pg_catalog.int8
);
