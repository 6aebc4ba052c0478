-- Procedures for the specs. Neither these nor a spec may print an id or a time, as the expected output has to be the same
-- on every machine. Users and sessions have names; their ids are presence_id(name).

CREATE SCHEMA race;

-- Waits until a condition holds, evaluated in a transaction of its own. Fails if it does not within a minute.
CREATE PROCEDURE race.until(condition text) LANGUAGE plpgsql AS $$
DECLARE
    holds boolean;
BEGIN
    FOR attempt IN 1 .. 6000 LOOP
        EXECUTE 'SELECT ' || condition INTO holds;
        COMMIT;
        IF holds THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RAISE 'timed out waiting: %', condition;
END $$;

-- Installs the extension unless it is installed, and waits until its worker serves the database.
CREATE PROCEDURE race.install() LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL client_min_messages = warning;
    CREATE SCHEMA IF NOT EXISTS presence;
    CREATE EXTENSION IF NOT EXISTS pg_presence SCHEMA presence;
    COMMIT;
    CALL race.until('is_complete AND last_tick_at IS NOT NULL FROM presence.presence_stats');
END $$;

-- Returns the token of a session.
CREATE FUNCTION race.token(session text) RETURNS text IMMUTABLE LANGUAGE sql
    RETURN 'the secret token of the ' || session;

-- Waits until the worker has written every change made so far. Changes are written in order, so the change of a new user
-- comes last.
CREATE PROCEDURE race.settle() LANGUAGE plpgsql AS $$
DECLARE
    latecomer uuid := gen_random_uuid();
BEGIN
    INSERT INTO presence.user_sessions (user_id) VALUES (latecomer);
    COMMIT;
    CALL race.until(format('EXISTS (SELECT FROM presence.user_presence WHERE user_id = %L)', latecomer));
    PERFORM presence.forget_user(latecomer);
    COMMIT;
END $$;

-- Deletes everything, starts these sessions of anna, and waits until the feed has her active.
CREATE PROCEDURE race.reset(VARIADIC sessions text[] DEFAULT '{}') LANGUAGE plpgsql AS $$
BEGIN
    CALL race.install();
    DELETE FROM presence.user_sessions;
    COMMIT;
    CALL race.settle();
    PERFORM presence.forget_user(presence.presence_id(name)) FROM unnest(ARRAY['anna', 'bert']) name;
    COMMIT;
    INSERT INTO presence.user_sessions (id, user_id, session_token)
        SELECT presence.presence_id(name), presence.presence_id('anna'), race.token(name) FROM unnest(sessions) name;
    COMMIT;
    CALL race.settle();
END $$;

-- Makes a session time out, and waits until that is written.
CREATE PROCEDURE race.silence(session text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM presence.release_session(presence.presence_id(session), '10 ms');
    COMMIT;
    CALL race.until($c$NOT presence.is_online(presence.presence_id('anna'))$c$);
    CALL race.until($c$NOT is_online FROM presence.user_presence WHERE user_id = presence.presence_id('anna')$c$);
END $$;

-- Waits until the worker, which a lock keeps from writing, has tried again.
CREATE PROCEDURE race.wait_for_retry() LANGUAGE plpgsql AS $$
BEGIN
    CALL race.until(format($c$EXISTS (SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'pg_presence worker'
          AND query = 'writing changes' AND query_start > %L)$c$, clock_timestamp()));
END $$;

-- Returns all changes of a user, in order.
CREATE PROCEDURE race.changes(name text, INOUT changes text = NULL) LANGUAGE plpgsql AS $$
BEGIN
    CALL race.settle();
    SELECT coalesce(string_agg(status || ' (' || reason || ')', ', ' ORDER BY seq), 'nothing') INTO changes
        FROM presence.presence_changes WHERE user_id = presence.presence_id(name);
END $$;
