-- Presence as Zulip's documentation describes it: a row per user, a sequence row per realm that numbers the updates,
-- and no update within 55 seconds of the last. The interval is an argument here: Zulip's clients send a heartbeat once
-- a minute, so that nearly every one writes; a benchmark that sends them more often passes 0.
CREATE SCHEMA zulip;
CREATE TABLE zulip.sequence (realm_id integer PRIMARY KEY, last_update_id bigint NOT NULL) WITH (fillfactor = 10);
CREATE TABLE zulip.presence (
    user_id uuid PRIMARY KEY,
    realm_id integer NOT NULL,
    last_connected timestamptz NOT NULL,
    last_active timestamptz NOT NULL,
    last_update_id bigint NOT NULL
);
CREATE INDEX ON zulip.presence (realm_id, last_update_id);
CREATE FUNCTION zulip.heartbeat(id uuid, min_interval interval = '55 s') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    realm integer;
    number bigint;
BEGIN
    SELECT realm_id INTO realm FROM zulip.presence
     WHERE user_id = id AND last_connected < now() - min_interval;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE zulip.sequence SET last_update_id = last_update_id + 1 WHERE realm_id = realm
        RETURNING last_update_id INTO number;
    UPDATE zulip.presence SET last_connected = now(), last_active = now(), last_update_id = number WHERE user_id = id;
END $$;
GRANT USAGE ON SCHEMA zulip TO bench_service;
GRANT SELECT, INSERT, UPDATE ON zulip.sequence, zulip.presence TO bench_service;
