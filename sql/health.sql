-- Health checks: one row per check, with a hint if it fails.

CREATE FUNCTION @extschema@.presence_health()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    -- The schema may have been renamed since the install.
    home regnamespace := (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'pg_presence');
    stats record;
    standby bool := pg_is_in_recovery();
    found text;
    active_timeout interval;
    heartbeat interval;
    flush interval;
BEGIN
    -- Library, worker and settings

    check_name := 'preload';
    ok := EXISTS (SELECT FROM pg_settings s WHERE s.name = 'presence.max_sessions');
    detail := CASE WHEN ok THEN 'The library was loaded via shared_preload_libraries.'
                   ELSE 'The library was not loaded via shared_preload_libraries.' END;
    hint := CASE WHEN NOT ok
                 THEN 'Add pg_presence to shared_preload_libraries in postgresql.conf and restart the server.' END;
    RETURN NEXT;

    IF ok THEN
        EXECUTE format('SELECT s.* FROM %s.presence_stats s', home) INTO stats;

        check_name := 'worker';
        ok := standby OR (stats.worker_pid IS NOT NULL
                          AND stats.last_tick_at IS NOT NULL
                          AND clock_timestamp() - stats.last_tick_at < interval '5 s');
        detail := CASE
            WHEN standby THEN 'A standby has no worker; it starts at promotion.'
            WHEN stats.worker_pid IS NULL THEN 'No worker is running for this database.'
            WHEN stats.last_tick_at IS NULL THEN format('The worker with PID %s is starting.', stats.worker_pid)
            ELSE format('The worker with PID %s was last active %s ms ago.', stats.worker_pid,
                        round(extract(epoch FROM clock_timestamp() - stats.last_tick_at) * 1000)) END;
        hint := CASE WHEN NOT ok
            THEN 'Check the server log. If there is no free worker slot, increase max_worker_processes and restart.' END;
        RETURN NEXT;

        check_name := 'capacity';
        ok := NOT stats.in_overflow AND stats.used < stats.capacity * 0.9;
        detail := format('%s of %s slots are in use%s.', stats.used, stats.capacity,
                         CASE WHEN stats.in_overflow THEN '; some sessions have no slot' ELSE '' END);
        hint := CASE WHEN NOT ok
            THEN 'Presence remains correct but becomes slower. Increase presence.max_sessions and restart.' END;
        RETURN NEXT;

        check_name := 'complete';
        ok := standby OR stats.is_complete;
        detail := CASE WHEN standby THEN 'A standby reads the tables.'
                       WHEN ok THEN 'All sessions are in shared memory.'
                       ELSE 'Some sessions are not in shared memory, so some calls read the table.' END;
        hint := CASE WHEN NOT ok
            THEN 'This is normal for some seconds after a start. If it persists, see the checks worker and capacity.' END;
        RETURN NEXT;

        active_timeout := current_setting('presence.active_timeout')::interval;
        heartbeat := current_setting('presence.heartbeat_interval')::interval;
        flush := current_setting('presence.flush_interval')::interval;

        check_name := 'flush';
        ok := standby OR COALESCE(stats.oldest_unflushed_ms, 0) / 1000.0
                             < extract(epoch FROM flush) * 2 + 60;
        detail := format('The table lags behind by at most %s s.', round(COALESCE(stats.oldest_unflushed_ms, 0) / 1000.0));
        hint := CASE WHEN NOT ok
            THEN 'Something prevents the worker from updating user_sessions. Check pg_locks for locks on the table.' END;
        RETURN NEXT;

        check_name := 'settings';
        found := concat_ws(' ',
            CASE WHEN heartbeat > active_timeout * 0.4
                 THEN 'presence.heartbeat_interval exceeds 2/5 of presence.active_timeout; the lower value is used.' END,
            CASE WHEN flush > (active_timeout - least(heartbeat, active_timeout * 0.4)) / 2
                 THEN 'presence.flush_interval exceeds half of (active_timeout - heartbeat_interval); the lower value is used.' END,
            CASE WHEN current_setting('presence.retention')::interval < active_timeout
                 THEN 'presence.retention is less than presence.active_timeout; sessions that time out cannot resume.' END,
            CASE WHEN current_setting('presence.session_lifetime')::interval < active_timeout
                 THEN 'presence.session_lifetime is less than presence.active_timeout; sessions expire before they time out.' END,
            CASE WHEN current_setting('presence.notify_payload') = 'off'
                 THEN 'presence.notify_payload is off; changes are not notified.' END);
        ok := found = '';
        detail := CASE WHEN ok THEN 'The settings are consistent.' ELSE found END;
        hint := CASE WHEN NOT ok THEN 'Change the settings in postgresql.conf or with ALTER SYSTEM, and reload.' END;
        RETURN NEXT;

        check_name := 'identity';
        found := current_setting('presence.user_id_function', true);
        ok := found IS NULL OR found = ''
              OR (cardinality(parse_ident(found)) > 1
                  AND EXISTS (SELECT FROM pg_proc p
                               WHERE p.oid = to_regprocedure(found || '(uuid)') AND p.prorettype = 'uuid'::regtype));
        detail := CASE WHEN found IS NULL OR found = '' THEN 'The identity of a client is the ID of its user.'
                       WHEN ok THEN format('The function %s maps identities to users.', found)
                       ELSE format('%s is not the schema-qualified name of a function from uuid to uuid.', found) END;
        hint := CASE WHEN NOT ok
            THEN 'Set presence.user_id_function to the schema-qualified name of such a function.' END;
        RETURN NEXT;

        check_name := 'queue';
        ok := stats.notification_queue_usage < 0.5;
        detail := format('The notification queue is %s %% full.',
                         round((stats.notification_queue_usage * 100)::numeric, 1));
        hint := CASE WHEN NOT ok
            THEN 'A listening session keeps a transaction open. Check pg_stat_activity for long transactions.' END;
        RETURN NEXT;
    END IF;

    -- Tables, privileges and logging

    check_name := 'owner';
    SELECT string_agg(format('%s (%s)', c.relname, c.relowner::regrole), ', ' ORDER BY c.relname),
           count(DISTINCT c.relowner) = 1
      INTO found, ok
      FROM pg_class c
     WHERE c.relnamespace = home
       AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state');
    detail := CASE WHEN ok THEN 'All tables have the same owner.'
                   ELSE format('The tables have different owners: %s.', found) END;
    hint := CASE WHEN NOT ok
        THEN 'The worker writes as the owner of user_sessions. Run ALTER TABLE ... OWNER TO that role for all four.' END;
    RETURN NEXT;

    check_name := 'row_security';
    SELECT string_agg(c.relname, ', ' ORDER BY c.relname) INTO found
      FROM pg_class c
     WHERE c.relnamespace = home
       AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state')
       AND NOT c.relrowsecurity;
    ok := found IS NULL;
    detail := CASE WHEN ok THEN 'Row-level security is enabled on every table.'
                   ELSE format('Row-level security is disabled on %s.', found) END;
    hint := CASE WHEN NOT ok THEN 'As the owner, run ALTER TABLE ... ENABLE ROW LEVEL SECURITY.' END;
    RETURN NEXT;

    check_name := 'triggers';
    SELECT string_agg(wanted.name, ', ' ORDER BY wanted.name) INTO found
      FROM (VALUES ('presence_before_write', 'O'), ('presence_capture', 'A'), ('presence_capture_truncate', 'A'))
           wanted (name, enabled)
     WHERE NOT EXISTS (
         SELECT FROM pg_trigger t
          WHERE t.tgrelid = to_regclass(home || '.user_sessions') AND t.tgname = wanted.name
            AND t.tgenabled = wanted.enabled::"char");
    ok := found IS NULL;
    detail := CASE WHEN ok THEN 'The triggers of user_sessions are enabled.'
                   ELSE format('Triggers of user_sessions are missing, or not enabled as installed: %s.', found) END;
    hint := CASE WHEN NOT ok THEN
        'As the owner, run ALTER TABLE ... ENABLE TRIGGER presence_before_write, ENABLE ALWAYS TRIGGER presence_capture, '
        'ENABLE ALWAYS TRIGGER presence_capture_truncate. This is needed after pg_restore --disable-triggers.' END;
    RETURN NEXT;

    check_name := 'services';
    SELECT string_agg(CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, ', ' ORDER BY 1),
           COALESCE(bool_and(a.grantee <> 0 AND pg_get_userbyid(a.grantee) NOT IN ('anon', 'authenticated')), true)
      INTO found, ok
      FROM pg_proc p, LATERAL aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
     WHERE p.oid = to_regprocedure(home || '._service_marker()') AND a.grantee <> p.proowner;
    detail := CASE WHEN found IS NULL THEN 'Only the owner, superusers and roles with BYPASSRLS are services.'
                   ELSE format('These roles are services: %s.', found) END;
    hint := CASE WHEN NOT ok THEN format('Run REVOKE EXECUTE ON FUNCTION %s._service_marker() FROM ...', home) END;
    RETURN NEXT;

    check_name := 'grants';
    found := (
        SELECT string_agg(DISTINCT format('%s on %s to %s', g.privilege, g.object,
                   CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.grantee)::text END), '; ')
          FROM (
              SELECT a.privilege_type AS privilege, c.relname::text AS object, a.grantee
                FROM pg_class c, LATERAL aclexplode(c.relacl) a
               WHERE c.relnamespace = home
                 AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state')
                 AND a.grantee <> c.relowner
                 AND (a.grantee = 0
                      OR c.relname = '_feed_state'
                      OR a.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN')
                      OR (c.relname <> 'user_sessions' AND a.privilege_type <> 'SELECT')
                      OR (a.privilege_type IN ('UPDATE', 'DELETE')
                          AND NOT has_function_privilege(a.grantee, home || '._service_marker()', 'EXECUTE')))
              UNION ALL
              SELECT a.privilege_type, p.oid::regprocedure::text, a.grantee
                FROM pg_proc p
                JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
                                   AND e.extname = 'pg_presence',
                     LATERAL aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
               WHERE a.grantee <> p.proowner
                 AND (p.prorettype = 'trigger'::regtype
                      OR p.proname LIKE 'grant\_%'
                      OR p.proname = '_grant_usage'
                      OR (a.grantee = 0
                          AND p.proname NOT IN ('is_service', 'presence_user_id', 'presence_auth_id', 'presence_id',
                                                'token_digest', '_service_marker')))
          ) g);
    ok := found IS NULL;
    detail := CASE WHEN ok THEN 'No privileges exceed those granted by the grant_*() functions.'
                   ELSE format('Privileges beyond those granted by the grant_*() functions: %s.', found) END;
    hint := CASE WHEN NOT ok
        THEN 'Revoke those that are not intended. A role that may update or truncate a table may also lock it.' END;
    RETURN NEXT;

    check_name := 'schema';
    SELECT string_agg(CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, ', ') INTO found
      FROM pg_namespace n
      JOIN pg_database d ON d.datname = current_database(),
           LATERAL aclexplode(n.nspacl) a
      LEFT JOIN pg_roles r ON r.oid = a.grantee
     WHERE n.oid = home
       AND a.privilege_type = 'CREATE'
       AND a.grantee NOT IN (n.nspowner, d.datdba)
       AND r.rolname IS DISTINCT FROM 'pg_database_owner'
       AND r.rolsuper IS NOT TRUE;
    ok := found IS NULL;
    detail := CASE WHEN ok THEN format('No other role can create objects in schema %s.', home)
                   ELSE format('Roles that can create objects in schema %s could shadow the extension''s functions: %s.',
                               home, found) END;
    hint := CASE WHEN NOT ok THEN format('Run REVOKE CREATE ON SCHEMA %s FROM %s.', home, found) END;
    RETURN NEXT;

    check_name := 'logging';
    ok := (current_setting('log_parameter_max_length') = '0'
           OR (current_setting('log_statement') NOT IN ('all', 'mod')
               AND current_setting('log_min_duration_statement') = '-1'
               AND current_setting('log_min_duration_sample') = '-1'
               AND current_setting('log_transaction_sample_rate')::numeric = 0))
          AND current_setting('log_parameter_max_length_on_error') = '0'
          -- A custom plan contains the values of its parameters.
          AND (COALESCE(current_setting('auto_explain.log_min_duration', true), '-1') = '-1'
               OR current_setting('auto_explain.log_verbose') = 'off');
    detail := CASE WHEN ok THEN 'Statement parameters, and so tokens, are not logged.'
                   ELSE 'Statement parameters may be logged, including tokens.' END;
    hint := CASE WHEN NOT ok
        THEN 'Set log_parameter_max_length and log_parameter_max_length_on_error to 0 and auto_explain.log_verbose to off, '
             'and pass tokens as parameters, not as literals.' END;
    RETURN NEXT;
END
$function$;
