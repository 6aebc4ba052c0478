-- The five tables. Privileges are in grants.sql and closing.sql, triggers in triggers.sql, policies in policies.sql.

-- One row per session.
--
-- The worker updates last_activity and is_active of every live session in each flush, so:
--   * no index contains either column, which makes each update a HOT update, and
--   * pages are filled by half, so that all rows of a page can be updated in one batch and stay on it.
CREATE TABLE @extschema@.user_sessions (
    id pg_catalog.uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    user_id pg_catalog.uuid NOT NULL DEFAULT
        CASE WHEN NOT @extschema@.is_service() THEN @extschema@.presence_user_id() END,
    auth_id pg_catalog.uuid NOT NULL DEFAULT
        CASE WHEN NOT @extschema@.is_service() THEN @extschema@.presence_auth_id() END,
    session_token pg_catalog.text NOT NULL DEFAULT
        'sha256:' OPERATOR(pg_catalog.||) pg_catalog.encode(pg_catalog.sha256(
            pg_catalog.uuid_send(pg_catalog.gen_random_uuid())
            OPERATOR(pg_catalog.||) pg_catalog.uuid_send(pg_catalog.gen_random_uuid())), 'hex'),
    is_active pg_catalog.bool NOT NULL DEFAULT true,
    last_activity pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    expires_at pg_catalog.timestamptz NOT NULL DEFAULT
        pg_catalog.now() OPERATOR(pg_catalog.+)
        pg_catalog.current_setting('presence.session_lifetime')::pg_catalog.interval,
    metadata pg_catalog.jsonb NOT NULL DEFAULT '{}',
    ended_at pg_catalog.timestamptz,
    user_key pg_catalog.text,
    CONSTRAINT user_sessions_pkey PRIMARY KEY (id),
    CONSTRAINT user_sessions_session_token_check
        -- '^sha256:[0-9a-f]{64}$', but a regular expression takes a sixth of the time of an INSERT.
        CHECK (pg_catalog.octet_length(session_token) OPERATOR(pg_catalog.=) 71
               AND pg_catalog.rtrim(pg_catalog.textsend(session_token), pg_catalog.textsend('0123456789abcdef'))
                   OPERATOR(pg_catalog.=) pg_catalog.textsend('sha256:')),
    CONSTRAINT user_sessions_metadata_check
        CHECK (pg_catalog.jsonb_typeof(metadata) OPERATOR(pg_catalog.=) 'object'
               AND pg_catalog.pg_column_size(metadata) OPERATOR(pg_catalog.<=) 8192)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);

CREATE UNIQUE INDEX user_sessions_session_token_key ON @extschema@.user_sessions (session_token) WHERE ended_at IS NULL;
-- Tokens of ended sessions are looked up too, to distinguish them from unknown tokens without a sequential scan.
CREATE INDEX user_sessions_session_token_idx ON @extschema@.user_sessions USING hash (session_token);
-- With ended_at, a user's sessions that have not ended are found without reading those that have, however many.
CREATE INDEX user_sessions_user_id_idx ON @extschema@.user_sessions (user_id, ended_at);
CREATE INDEX user_sessions_auth_id_idx ON @extschema@.user_sessions (auth_id);

-- One row per user, written when the status changes, or what is declared and shows. is_online is not a generated column, as logical replication omits
-- generated columns.
CREATE TABLE @extschema@.user_presence (
    user_id pg_catalog.uuid NOT NULL,
    user_key pg_catalog.text,
    status @extschema@.presence_status NOT NULL,
    is_online pg_catalog.bool NOT NULL,
    last_seen pg_catalog.timestamptz,
    changed_at pg_catalog.timestamptz NOT NULL,
    seq pg_catalog.int8 NOT NULL,
    idle_since pg_catalog.timestamptz,
    status_text pg_catalog.text,
    emoji pg_catalog.text,
    status_expires_at pg_catalog.timestamptz,
    CONSTRAINT user_presence_pkey PRIMARY KEY (user_id)
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- A hash index, as keys may be too long for a B-tree and are only compared for equality.
CREATE INDEX user_presence_user_key_idx ON @extschema@.user_presence USING hash (user_key);

-- The feed. user_id and user_key are null in rows that forget_user() has anonymized.
CREATE TABLE @extschema@.presence_changes (
    seq pg_catalog.int8 NOT NULL,
    user_id pg_catalog.uuid,
    user_key pg_catalog.text,
    status @extschema@.presence_status NOT NULL,
    previous @extschema@.presence_status NOT NULL,
    changed_at pg_catalog.timestamptz NOT NULL,
    last_seen pg_catalog.timestamptz,
    reason pg_catalog.text NOT NULL,
    details pg_catalog.bool NOT NULL DEFAULT false,
    CONSTRAINT presence_changes_pkey PRIMARY KEY (seq)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- The state of the feed. The worker keeps it to one row and creates that row if there is none. No constraint enforces
-- this: a restore adds the dumped row to the existing one, and the worker then merges the two in a new epoch. origin
-- identifies the server, timeline and table of the epoch, so that a copy of the database can be recognized as one.
CREATE TABLE @extschema@._feed_state (
    epoch pg_catalog.text NOT NULL,
    seq pg_catalog.int8 NOT NULL,
    oldest_seq pg_catalog.int8 NOT NULL,
    origin pg_catalog.text
) WITH (
    autovacuum_vacuum_threshold = 200,
    autovacuum_vacuum_scale_factor = 0
);
-- The table has no key; with this identity it can be updated even if it is published, as by FOR ALL TABLES.
ALTER TABLE @extschema@._feed_state REPLICA IDENTITY FULL;

INSERT INTO @extschema@._feed_state (epoch, seq, oldest_seq)
VALUES (pg_catalog.gen_random_uuid()::pg_catalog.text, 0, 1);

-- What is declared of users: small claims, at most one of each source. What shows is computed from those that are valid.
-- A trigger checks them first, with better messages, but not those that are replicated.
CREATE TABLE @extschema@.declared_statuses (
    user_id pg_catalog.uuid NOT NULL DEFAULT
        CASE WHEN NOT @extschema@.is_service() THEN @extschema@.presence_user_id() END,
    source pg_catalog.text NOT NULL DEFAULT 'manual',
    status pg_catalog.text,
    status_text pg_catalog.text,
    emoji pg_catalog.text,
    set_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    expires_at pg_catalog.timestamptz,
    by_user pg_catalog.bool NOT NULL DEFAULT false,
    last_seen pg_catalog.timestamptz,
    shown_at pg_catalog.timestamptz,
    CONSTRAINT declared_statuses_pkey PRIMARY KEY (user_id, source),
    CONSTRAINT declared_statuses_source_check
        CHECK (pg_catalog.octet_length(source) OPERATOR(pg_catalog.>=) 1
               AND pg_catalog.octet_length(source) OPERATOR(pg_catalog.<=) 63),
    CONSTRAINT declared_statuses_status_check
        CHECK (status OPERATOR(pg_catalog.=) ANY (ARRAY['busy', 'away', 'available', 'invisible'])),
    CONSTRAINT declared_statuses_status_text_check
        CHECK (pg_catalog.char_length(status_text) OPERATOR(pg_catalog.>=) 1
               AND pg_catalog.char_length(status_text) OPERATOR(pg_catalog.<=) 140),
    CONSTRAINT declared_statuses_emoji_check
        CHECK (pg_catalog.octet_length(emoji) OPERATOR(pg_catalog.>=) 1
               AND pg_catalog.octet_length(emoji) OPERATOR(pg_catalog.<=) 64),
    CONSTRAINT declared_statuses_check
        CHECK (status IS NOT NULL OR status_text IS NOT NULL OR emoji IS NOT NULL),
    CONSTRAINT declared_statuses_visibility_check
        CHECK (source OPERATOR(pg_catalog.=) 'visibility'
               AND status IS NOT NULL AND status OPERATOR(pg_catalog.=) 'invisible'
               AND status_text IS NULL AND emoji IS NULL
               OR source OPERATOR(pg_catalog.<>) 'visibility'
                  AND (status IS NULL OR status OPERATOR(pg_catalog.<>) 'invisible')
                  AND NOT by_user AND last_seen IS NULL AND shown_at IS NULL)
) WITH (
    fillfactor = 80,
    -- Without its lock, for which readers do not wait.
    vacuum_truncate = false,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- The worker reports what expires.
CREATE INDEX declared_statuses_expires_at_idx ON @extschema@.declared_statuses (expires_at) WHERE expires_at IS NOT NULL;

-- Who is hidden, or has been.
CREATE INDEX declared_statuses_visibility_idx ON @extschema@.declared_statuses (user_id)
    WHERE source OPERATOR(pg_catalog.=) 'visibility';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.declared_statuses', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.user_sessions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.user_presence', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@._feed_state', '');
