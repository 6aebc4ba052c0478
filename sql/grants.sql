-- Who may do what, as four functions for the owner: ordinary grants, which pg_dump keeps and REVOKE takes back.

-- What every one of them needs first.
CREATE FUNCTION @extschema@.presence_grant_usage(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    IF role IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = 'a role is needed',
            HINT = 'Name it, such as: SELECT grant_client(''authenticated'');';
    END IF;
    IF NOT has_schema_privilege(role, '@extschema@'::regnamespace, 'USAGE') THEN
        EXECUTE 'GRANT USAGE ON SCHEMA @extschema@ TO ' || role::text;
    END IF;
END
$function$;

CREATE FUNCTION @extschema@.grant_holder(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    PERFORM @extschema@.presence_grant_usage(role);
    EXECUTE 'GRANT EXECUTE ON FUNCTION
        @extschema@.heartbeat_by_token(text),
        @extschema@.end_session_by_token(text),
        @extschema@.release_session_by_token(text, interval)
        TO ' || role::text;
END
$function$;

-- No DELETE, no TRUNCATE, and UPDATE only column by column: with any of these on the table a role could lock it.
CREATE FUNCTION @extschema@.grant_client(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    PERFORM @extschema@.presence_grant_usage(role);
    EXECUTE 'GRANT EXECUTE ON FUNCTION
        @extschema@.start_session(uuid, text, jsonb, text, interval, uuid),
        @extschema@.heartbeat(uuid),
        @extschema@.heartbeat_many(uuid[]),
        @extschema@.end_session(uuid),
        @extschema@.end_sessions(uuid[]),
        @extschema@.end_user_sessions(uuid),
        @extschema@.release_session(uuid, interval),
        @extschema@.release_sessions(uuid[], interval),
        @extschema@.rotate_session_token(uuid),
        @extschema@.user_status(uuid),
        @extschema@.is_online(uuid),
        @extschema@.last_seen(uuid)
        TO ' || role::text;
    EXECUTE 'GRANT SELECT, INSERT,
        UPDATE (id, user_id, auth_id, session_token, is_active, last_activity, created_at, expires_at, metadata,
                ended_at, user_key)
        ON TABLE @extschema@.user_sessions TO ' || role::text;
END
$function$;

CREATE FUNCTION @extschema@.grant_reader(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    PERFORM @extschema@.presence_grant_usage(role);
    EXECUTE 'GRANT EXECUTE ON FUNCTION
        @extschema@.user_status(uuid),
        @extschema@.is_online(uuid),
        @extschema@.last_seen(uuid),
        @extschema@.presence_of(uuid[]),
        @extschema@.online_users(),
        @extschema@.online_count(),
        @extschema@.presence_cursor(),
        @extschema@.changes_since(bigint, text, integer)
        TO ' || role::text;
    EXECUTE 'GRANT SELECT ON TABLE @extschema@.user_presence, @extschema@.presence_changes TO ' || role::text;
END
$function$;

CREATE FUNCTION @extschema@.grant_service(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    PERFORM @extschema@.grant_holder(role);
    PERFORM @extschema@.grant_client(role);
    PERFORM @extschema@.grant_reader(role);
    EXECUTE 'GRANT EXECUTE ON FUNCTION
        @extschema@.presence_service_marker(),
        @extschema@.start_sessions(uuid[], jsonb),
        @extschema@.forget_user(uuid),
        @extschema@.cleanup_sessions(),
        @extschema@.presence_stats_raw(),
        @extschema@.presence_health()
        TO ' || role::text;
    EXECUTE 'GRANT SELECT ON TABLE @extschema@.presence_stats TO ' || role::text;
    EXECUTE 'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE @extschema@.user_sessions TO ' || role::text;
END
$function$;
