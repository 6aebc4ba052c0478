-- Types: the status, and the row types of functions.

CREATE TYPE @extschema@.presence_status AS ENUM ('active', 'idle', 'busy', 'inactive');

-- Returned by start_session().
CREATE TYPE @extschema@.presence_session AS (
    session_id pg_catalog.uuid,
    session_token pg_catalog.text,
    expires_at pg_catalog.timestamptz,
    heartbeat_ms pg_catalog.int4,
    timeout_ms pg_catalog.int4,
    server_time pg_catalog.timestamptz
);

-- Returned by presence_of() and online_users().
CREATE TYPE @extschema@.presence_user AS (
    user_id pg_catalog.uuid,
    user_key pg_catalog.text,
    status @extschema@.presence_status,
    is_online pg_catalog.bool,
    last_seen pg_catalog.timestamptz,
    session_count pg_catalog.int4,
    idle_since pg_catalog.timestamptz,
    status_text pg_catalog.text,
    emoji pg_catalog.text,
    status_expires_at pg_catalog.timestamptz
);

-- Returned by set_status().
CREATE TYPE @extschema@.presence_declared_status AS (
    user_id pg_catalog.uuid,
    source pg_catalog.text,
    status pg_catalog.text,
    status_text pg_catalog.text,
    emoji pg_catalog.text,
    set_at pg_catalog.timestamptz,
    expires_at pg_catalog.timestamptz
);

-- Returned by own_presence().
CREATE TYPE @extschema@.presence_own AS (
    status @extschema@.presence_status,
    shown @extschema@.presence_status,
    is_invisible pg_catalog.bool,
    status_text pg_catalog.text,
    emoji pg_catalog.text,
    status_expires_at pg_catalog.timestamptz,
    idle_since pg_catalog.timestamptz,
    session_count pg_catalog.int4
);

-- Returned by presence_cursor().
CREATE TYPE @extschema@.presence_feed_cursor AS (
    epoch pg_catalog.text,
    seq pg_catalog.int8
);

-- A role with the USAGE privilege on this type is a service. It is a type, as GRANT ... ON ALL TABLES, ALL ROUTINES or ALL
-- SEQUENCES IN SCHEMA does not reach it. No value is ever of this type.
CREATE DOMAIN @extschema@._service_marker AS pg_catalog.bool;

-- Returned by _stats(), for the view presence_stats.
CREATE TYPE @extschema@._stats_row AS (
    live_sessions pg_catalog.int8,
    known_sessions pg_catalog.int8,
    users_online pg_catalog.int8,
    known_users pg_catalog.int8,
    capacity pg_catalog.int8,
    used pg_catalog.int8,
    is_complete pg_catalog.bool,
    in_overflow pg_catalog.bool,
    overflowed pg_catalog.int8,
    evicted pg_catalog.int8,
    slow_calls pg_catalog.int8,
    beats pg_catalog.int8,
    rejected_beats pg_catalog.int8,
    unwritten_users pg_catalog.int8,
    changes pg_catalog.int8,
    notifications pg_catalog.int8,
    flushed_rows pg_catalog.int8,
    deactivated_rows pg_catalog.int8,
    deleted_rows pg_catalog.int8,
    worker_pid pg_catalog.int4,
    worker_started_at pg_catalog.timestamptz,
    last_tick_at pg_catalog.timestamptz,
    last_flush_at pg_catalog.timestamptz,
    last_cleanup_at pg_catalog.timestamptz,
    tick_ms pg_catalog.float8,
    flush_ms pg_catalog.float8,
    cleanup_ms pg_catalog.float8,
    oldest_unflushed_ms pg_catalog.int8,
    oldest_unwritten_ms pg_catalog.int8,
    set_aside pg_catalog.int8,
    last_error pg_catalog.text,
    last_error_at pg_catalog.timestamptz
);

-- Returned by cleanup_sessions().
CREATE TYPE @extschema@.presence_cleanup AS (
    deactivated pg_catalog.int8,
    deleted pg_catalog.int8
);

-- Returned by _definitions(), for presence_health(). What `definition`, `required` and `fallback` mean depends on the kind.
CREATE TYPE @extschema@._definition AS (
    relation pg_catalog.text,
    relid pg_catalog.oid,
    name pg_catalog.text,
    place pg_catalog.int4,
    definition pg_catalog.text,
    required pg_catalog.bool,
    fallback pg_catalog.text
);
