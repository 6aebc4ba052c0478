-- A client in psql:  psql -f presence.sql
\set ON_ERROR_STOP on
SET search_path = presence, public;

-- First LISTEN, then read the feed's cursor, then who is online: in this order no change is missed.
LISTEN presence;
SELECT epoch, seq FROM presence_cursor() \gset
SELECT user_key, status FROM user_presence WHERE is_online;

-- A program waits for notifications. psql only prints them after a command, so this polls the table instead.
CREATE PROCEDURE pg_temp.wait_until(wanted boolean) LANGUAGE plpgsql AS $$
BEGIN
    WHILE coalesce((SELECT is_online FROM presence.user_presence WHERE user_key = 'psql'), false) <> wanted LOOP
        COMMIT; -- so that the next query sees what the worker has written
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;

-- Start a session; then send a heartbeat every heartbeat_ms milliseconds.
SELECT session_id, heartbeat_ms FROM start_session(user_key => 'psql') \gset
CALL pg_temp.wait_until(true);
SELECT heartbeat(:'session_id');

-- Which of a list of users are online; unknown users are offline.
SELECT key, is_online(presence_id(key)) FROM unnest(ARRAY['psql', 'nobody']) key;

-- Log out.
SELECT end_session(:'session_id');
CALL pg_temp.wait_until(false);

-- Catch up: every 30 seconds, after a reconnect, and when a notification does not carry all changes.
SELECT seq, user_key, status, reason FROM changes_since(:seq, :'epoch');
