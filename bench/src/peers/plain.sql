-- The best table we know how to write: narrow; pages half empty and no index on what every beat changes, so that a beat
-- is a HOT update; and for the sweep an index on the minute, which changes once a minute at most.
CREATE SCHEMA plain;
CREATE TABLE plain.presence (
    session_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    last_seen timestamptz NOT NULL,
    minute integer NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX ON plain.presence (user_id);
CREATE INDEX ON plain.presence (minute);
CREATE FUNCTION plain.minute() RETURNS integer LANGUAGE sql STABLE AS
    'SELECT (extract(epoch FROM now()) / 60)::integer';
GRANT USAGE ON SCHEMA plain TO bench_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON plain.presence TO bench_service;
