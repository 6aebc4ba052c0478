-- The four tables. Their privileges are in closing.sql, their triggers in triggers.sql, their policies in policies.sql.

-- One row per session. The first eight columns are those of the application this grew out of, in its order.
--
-- The worker writes last_activity and is_active of every live session once per flush, so:
--   * no index has either column, which makes each such write a HOT update that touches no index, and
--   * pages are filled by half, so that all rows of one page can be written in one batch and stay on it.
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
        CHECK (session_token OPERATOR(pg_catalog.~) '^sha256:[0-9a-f]{64}$'),
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
-- An ended session's token is looked for too, so that it is told from an unknown one without a scan.
CREATE INDEX user_sessions_session_token_idx ON @extschema@.user_sessions USING hash (session_token);
CREATE INDEX user_sessions_user_id_idx ON @extschema@.user_sessions (user_id);
CREATE INDEX user_sessions_auth_id_idx ON @extschema@.user_sessions (auth_id);

-- One row per user ever seen, written when the visible status changes. is_online is a plain column because logical
-- replication leaves generated ones out.
CREATE TABLE @extschema@.user_presence (
    user_id pg_catalog.uuid NOT NULL,
    user_key pg_catalog.text,
    status @extschema@.presence_status NOT NULL,
    is_online pg_catalog.bool NOT NULL,
    last_seen pg_catalog.timestamptz,
    changed_at pg_catalog.timestamptz NOT NULL,
    seq pg_catalog.int8 NOT NULL,
    CONSTRAINT user_presence_pkey PRIMARY KEY (user_id)
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- A hash: keys may be longer than a btree takes, are looked up whole, and are mostly null, which a hash leaves out.
CREATE INDEX user_presence_user_key_idx ON @extschema@.user_presence USING hash (user_key);

-- The feed. user_id and user_key are null where forget_user() has blanked them.
CREATE TABLE @extschema@.presence_changes (
    seq pg_catalog.int8 NOT NULL,
    user_id pg_catalog.uuid,
    user_key pg_catalog.text,
    status @extschema@.presence_status NOT NULL,
    previous @extschema@.presence_status NOT NULL,
    changed_at pg_catalog.timestamptz NOT NULL,
    last_seen pg_catalog.timestamptz,
    reason pg_catalog.text NOT NULL,
    CONSTRAINT presence_changes_pkey PRIMARY KEY (seq)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- Where the feed stands. The worker keeps it to one row, and makes that row when there is none. It is not unique by
-- constraint: a restore adds the dumped row to the one that is there, and the worker then joins the two in a new epoch.
-- origin names the place the epoch belongs to (server, timeline, table), so that a copy of the database knows it is one.
CREATE TABLE @extschema@._feed_state (
    epoch pg_catalog.text NOT NULL,
    seq pg_catalog.int8 NOT NULL,
    oldest_seq pg_catalog.int8 NOT NULL,
    origin pg_catalog.text
) WITH (
    autovacuum_vacuum_threshold = 200,
    autovacuum_vacuum_scale_factor = 0
);
-- Without a key of its own, so that it can be written also where somebody publishes all tables of the database.
ALTER TABLE @extschema@._feed_state REPLICA IDENTITY FULL;

INSERT INTO @extschema@._feed_state (epoch, seq, oldest_seq)
VALUES (pg_catalog.gen_random_uuid()::pg_catalog.text, 0, 1);

SELECT pg_catalog.pg_extension_config_dump('@extschema@.user_sessions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.user_presence', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@._feed_state', '');
