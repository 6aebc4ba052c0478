-- Health: one row per check, with a hint if it fails. The checks are in health/.

-- Runs all checks. Whatever is broken, each of the others is run: the row of one that fails says why.
CREATE FUNCTION @extschema@.presence_health()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    -- The schema may have been renamed since the install.
    home regnamespace := (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'pg_presence');
    is_preloaded bool := EXISTS (SELECT FROM pg_settings s WHERE s.name = 'presence.max_sessions');
    part text;
BEGIN
    -- EXECUTE alone, as GRANT ... ON ALL ROUTINES gives it, is not enough.
    BEGIN
        EXECUTE format('SELECT pg_has_role(%L, ''USAGE'') OR %s.is_service()', 'pg_monitor', home) INTO ok;
    EXCEPTION
        WHEN insufficient_privilege THEN
            ok := false;
        WHEN OTHERS THEN
            -- Where the library is not loaded, nothing else can be called.
            ok := true;
    END;
    IF NOT ok THEN
        RAISE EXCEPTION USING
            ERRCODE = '42501',
            MESSAGE = 'must be a service or a member of pg_monitor to call this function',
            HINT = 'The owner of the extension can make a role a service with SELECT grant_service(''its role'').';
    END IF;

    check_name := 'preload';
    ok := is_preloaded;
    detail := CASE WHEN ok THEN 'The library was loaded via shared_preload_libraries.'
                   ELSE 'The library was not loaded via shared_preload_libraries.' END;
    hint := CASE WHEN NOT ok
                 THEN 'Add pg_presence to shared_preload_libraries in postgresql.conf and restart the server.' END;
    RETURN NEXT;

    -- The statements in the hints of tables and columns go before those of others.
    FOREACH part IN ARRAY
        CASE WHEN is_preloaded THEN ARRAY['worker', 'changes', 'settings', 'identity'] ELSE '{}' END
        || ARRAY['tables', 'columns', 'constraints', 'indexes', 'policies', 'triggers', 'other_triggers', 'owner',
                 'locked_out', 'services', 'grants', 'schema_owner', 'schema', 'logging']
    LOOP
        BEGIN
            RETURN QUERY EXECUTE format('SELECT h.* FROM %s.%I() h', home, '_health_' || part);
        EXCEPTION WHEN OTHERS THEN
            check_name := part;
            ok := false;
            detail := format('The check failed: %s.', SQLERRM);
            hint := CASE WHEN SQLSTATE = '42501' AND SQLERRM LIKE '%function%'
                         THEN format('SELECT %s._grant_health(%L);', home, current_user)
                         ELSE 'Correct what other checks report first. If only this one fails, check the server log.' END;
            RETURN NEXT;
        END;
    END LOOP;
END
$function$;
