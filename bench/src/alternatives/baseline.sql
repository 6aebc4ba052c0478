-- The baseline: the table and indexes of the application that pg_presence was written for. It is created in three
-- schemas: as it is, unlogged, and with a trigger that notifies every change.
CREATE SCHEMA {schema};
CREATE {unlogged} TABLE {schema}.user_sessions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    auth_id uuid NOT NULL,
    session_token text NOT NULL UNIQUE,
    is_active boolean NOT NULL DEFAULT true,
    last_activity timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL DEFAULT now() + interval '7 days'
);
CREATE INDEX ON {schema}.user_sessions (user_id);
CREATE INDEX ON {schema}.user_sessions (last_activity);
CREATE FUNCTION {schema}.notify_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{schema}', NEW.user_id::text);
    RETURN NULL;
END $$;
GRANT USAGE ON SCHEMA {schema} TO bench_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.user_sessions TO bench_service;
