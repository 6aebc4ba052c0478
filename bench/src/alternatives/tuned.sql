-- A table tuned for heartbeats: narrow, with half-empty pages and no index on what every heartbeat changes, so that a
-- heartbeat is a HOT update. The sweep uses an index on the minute, which changes once a minute at most.
CREATE SCHEMA tuned;
CREATE TABLE tuned.presence (
    session_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    last_seen timestamptz NOT NULL,
    minute integer NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX ON tuned.presence (user_id);
CREATE INDEX ON tuned.presence (minute);
CREATE FUNCTION tuned.minute() RETURNS integer LANGUAGE sql STABLE AS
    'SELECT (extract(epoch FROM now()) / 60)::integer';
GRANT USAGE ON SCHEMA tuned TO bench_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON tuned.presence TO bench_service;
