-- The privileges of a holder, client, reader and service: ordinary grants, which pg_dump dumps and REVOKE revokes. Called
-- by grant_holder() and its like, which check the caller, with the rights of the owner of these functions.
--
-- Each reads the name of the schema from the catalogs, as the schema may have been renamed since the install.

-- Called by the others first: grants USAGE on the schema, and what PUBLIC has been granted.
CREATE FUNCTION @extschema@._grant_usage(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    home text := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                   WHERE e.extname = 'pg_presence');
BEGIN
    IF role IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = 'role must not be null',
            HINT = 'Pass the name of a role, for example: SELECT grant_client(''authenticated'');';
    END IF;
    -- Not only where the role lacks them: a privilege that it has through PUBLIC may be revoked from there.
    IF has_schema_privilege(home, 'USAGE WITH GRANT OPTION') OR NOT has_schema_privilege(role, home, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', home, role);
    END IF;
    -- Policies and column defaults call the first three.
    EXECUTE format('GRANT EXECUTE ON FUNCTION
        %1$I.is_service(),
        %1$I.presence_user_id(),
        %1$I.presence_auth_id(),
        %1$I.presence_id(text),
        %1$I.presence_id(bigint),
        %1$I.token_digest(text)
        TO %2$s', home, role);
END
$function$;

-- Called for pg_monitor and services: grants presence_metrics(), and presence_health() with what it calls.
CREATE FUNCTION @extschema@._grant_health(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    home text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'pg_presence');
BEGIN
    EXECUTE format('SELECT %s._grant_usage(%L)', home, role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION
        %1$s.presence_metrics(),
        %1$s.presence_health(),
        %1$s._stats(),
        %1$s._definitions(text),
        %1$s._renamed_columns(),
        %1$s._comparable(text, oid),
        %1$s._health_worker(),
        %1$s._health_changes(),
        %1$s._health_settings(),
        %1$s._health_identity(),
        %1$s._health_tables(),
        %1$s._health_columns(),
        %1$s._health_constraints(),
        %1$s._health_indexes(),
        %1$s._health_triggers(),
        %1$s._health_policies(),
        %1$s._health_owner(),
        %1$s._health_services(),
        %1$s._health_grants(),
        %1$s._health_schema(),
        %1$s._health_locked_out(),
        %1$s._health_other_triggers(),
        %1$s._health_schema_owner(),
        %1$s._health_logging()
        TO %2$s', home, role);
END
$function$;

CREATE FUNCTION @extschema@._grant_holder(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    home text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'pg_presence');
BEGIN
    EXECUTE format('SELECT %s._grant_usage(%L)', home, role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION
        %1$s.heartbeat_by_token(text),
        %1$s.heartbeat_idle_by_token(text),
        %1$s.end_session_by_token(text),
        %1$s.release_session_by_token(text, interval)
        TO %2$s', home, role);
END
$function$;

-- Grants UPDATE on columns only, and neither DELETE nor TRUNCATE: any of these on the table would allow the role to lock it.
CREATE FUNCTION @extschema@._grant_client(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    home text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'pg_presence');
BEGIN
    EXECUTE format('SELECT %s._grant_usage(%L)', home, role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION
        %1$s.start_session(uuid, text, jsonb, text, interval, uuid),
        %1$s.heartbeat(uuid),
        %1$s.heartbeat_idle(uuid),
        %1$s.heartbeat_many(uuid[]),
        %1$s.end_session(uuid),
        %1$s.end_sessions(uuid[]),
        %1$s.end_user_sessions(uuid),
        %1$s.release_session(uuid, interval),
        %1$s.release_sessions(uuid[], interval),
        %1$s.rotate_session_token(uuid),
        %1$s.user_status(uuid),
        %1$s.is_online(uuid),
        %1$s.last_seen(uuid),
        %1$s.set_status(text, text, text, interval, text, uuid),
        %1$s.clear_status(text, uuid),
        %1$s.set_invisible(boolean, interval, uuid),
        %1$s.own_presence(uuid)
        TO %2$s', home, role);
    EXECUTE format('GRANT SELECT ON TABLE %1$s.declared_statuses TO %2$s', home, role);
    EXECUTE format('GRANT SELECT, INSERT,
        UPDATE (id, user_id, auth_id, session_token, is_active, last_activity, created_at, expires_at, metadata,
                ended_at, user_key)
        ON TABLE %1$s.user_sessions TO %2$s', home, role);
END
$function$;

CREATE FUNCTION @extschema@._grant_reader(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    home text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'pg_presence');
BEGIN
    EXECUTE format('SELECT %s._grant_usage(%L)', home, role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION
        %1$s.user_status(uuid),
        %1$s.is_online(uuid),
        %1$s.last_seen(uuid),
        %1$s.presence_of(uuid[], text[]),
        %1$s.online_users(),
        %1$s.online_count(),
        %1$s.presence_cursor(),
        %1$s.changes_since(bigint, text, integer)
        TO %2$s', home, role);
    EXECUTE format('GRANT SELECT ON TABLE %1$s.user_presence, %1$s.presence_changes TO %2$s', home, role);
END
$function$;

CREATE FUNCTION @extschema@._grant_service(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    home text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'pg_presence');
BEGIN
    EXECUTE format('SELECT %1$s._grant_holder(%2$L), %1$s._grant_client(%2$L), %1$s._grant_reader(%2$L)', home, role);
    EXECUTE format('GRANT USAGE ON TYPE %1$s._service_marker TO %2$s', home, role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION
        %1$s.start_sessions(uuid[], text[], text[], jsonb[]),
        %1$s.bind_sessions(uuid[], interval),
        %1$s.forget_user(uuid),
        %1$s.cleanup_sessions()
        TO %2$s', home, role);
    EXECUTE format('SELECT %s._grant_health(%L)', home, role);
    EXECUTE format('GRANT SELECT ON TABLE %1$s.presence_stats TO %2$s', home, role);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %1$s.user_sessions, %1$s.declared_statuses TO %2$s', home, role);
END
$function$;
