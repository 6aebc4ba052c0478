-- A client in psql:  psql -f presence.sql
\set ON_ERROR_STOP on
SET search_path = presence, public;

-- Listen first, then ask where the feed stands, then who is online: in this order nothing falls between.
LISTEN presence;
SELECT epoch, seq FROM presence_cursor() \gset
SELECT user_key, status FROM user_presence WHERE is_online;

-- A program waits for notifications. psql only shows them after a command, so it waits for what they are about.
CREATE PROCEDURE pg_temp.wait_until(wanted boolean) LANGUAGE plpgsql AS $$
BEGIN
    WHILE coalesce((SELECT is_online FROM presence.user_presence WHERE user_key = 'psql'), false) <> wanted LOOP
        COMMIT; -- to see what the worker has written since
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;

-- Start, and beat every heartbeat_ms milliseconds.
SELECT session_id, heartbeat_ms FROM start_session(user_key => 'psql') \gset
CALL pg_temp.wait_until(true);
SELECT heartbeat(:'session_id');

-- The status of a list of users, strangers too.
SELECT key, is_online(presence_id(key)) FROM unnest(ARRAY['psql', 'nobody']) key;

-- Log out.
SELECT end_session(:'session_id');
CALL pg_temp.wait_until(false);

-- Every 30 seconds, after a reconnect, and where a message says too little: what was there since?
SELECT seq, user_key, status, reason FROM changes_since(:seq, :'epoch');
