-- Statuses without the extension: a row per user, and a trigger that notifies each change.
CREATE SCHEMA statuses;
CREATE TABLE statuses.statuses (
    user_id uuid PRIMARY KEY,
    status text,
    status_text text,
    is_invisible boolean NOT NULL DEFAULT false,
    set_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
CREATE FUNCTION statuses.notify_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('statuses', NEW.user_id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE ON statuses.statuses
    FOR EACH ROW EXECUTE FUNCTION statuses.notify_change();
GRANT USAGE ON SCHEMA statuses TO bench_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON statuses.statuses TO bench_service;
