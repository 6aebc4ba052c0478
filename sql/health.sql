-- What one would look at by hand when something seems wrong: one row for each thing, with what to do about it.

CREATE FUNCTION @extschema@.presence_health()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    -- The schema's name may have been changed since the install.
    home regnamespace := (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'pg_presence');
    stats record;
    standby bool := pg_is_in_recovery();
    found text;
    active_timeout interval;
    heartbeat interval;
    flush interval;
BEGIN
    -- The library

    check_name := 'preload';
    ok := EXISTS (SELECT FROM pg_settings s WHERE s.name = 'presence.max_sessions');
    detail := CASE WHEN ok THEN 'The library was loaded when the server started.'
                   ELSE 'The library was not loaded when the server started.' END;
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
            WHEN standby THEN 'A standby has none; it starts at promotion.'
            WHEN stats.worker_pid IS NULL THEN 'No worker runs for this database.'
            WHEN stats.last_tick_at IS NULL THEN format('Process %s has not begun its work.', stats.worker_pid)
            ELSE format('Process %s last looked %s ms ago.', stats.worker_pid,
                        round(extract(epoch FROM clock_timestamp() - stats.last_tick_at) * 1000)) END;
        hint := CASE WHEN NOT ok
            THEN 'Look into the server''s log. There must be a free worker slot: raise max_worker_processes and restart.' END;
        RETURN NEXT;

        check_name := 'capacity';
        ok := NOT stats.in_overflow AND stats.used < stats.capacity * 0.9;
        detail := format('%s of %s slots are in use%s.', stats.used, stats.capacity,
                         CASE WHEN stats.in_overflow THEN ', and some sessions have none' ELSE '' END);
        hint := CASE WHEN NOT ok THEN 'Statuses stay right, but calls become slow: raise presence.max_sessions and restart.' END;
        RETURN NEXT;

        check_name := 'complete';
        ok := standby OR stats.is_complete;
        detail := CASE WHEN standby THEN 'A standby reads its tables.'
                       WHEN ok THEN 'All sessions are in shared memory.'
                       ELSE 'Not all sessions are in shared memory, so some calls read the table.' END;
        hint := CASE WHEN NOT ok THEN 'This passes within seconds of a start; if not, see the checks worker and capacity.' END;
        RETURN NEXT;

        active_timeout := current_setting('presence.active_timeout')::interval;
        heartbeat := current_setting('presence.heartbeat_interval')::interval;
        flush := current_setting('presence.flush_interval')::interval;

        check_name := 'flush';
        ok := standby OR COALESCE(stats.oldest_unflushed_ms, 0) / 1000.0
                             < extract(epoch FROM flush) * 2 + 60;
        detail := format('The table lags by at most %s s.', round(COALESCE(stats.oldest_unflushed_ms, 0) / 1000.0));
        hint := CASE WHEN NOT ok
            THEN 'Something keeps the worker from writing user_sessions: look for long locks on it in pg_locks.' END;
        RETURN NEXT;

        check_name := 'settings';
        found := concat_ws(' ',
            CASE WHEN heartbeat > active_timeout * 0.4
                 THEN 'presence.heartbeat_interval is above 2/5 of presence.active_timeout, so clients are told less.' END,
            CASE WHEN flush > (active_timeout - least(heartbeat, active_timeout * 0.4)) / 2
                 THEN 'presence.flush_interval is above half of what lies between timeout and heartbeat, so less counts.' END,
            CASE WHEN current_setting('presence.retention')::interval < active_timeout
                 THEN 'presence.retention is shorter than presence.active_timeout, so sleeping sessions cannot resume.' END,
            CASE WHEN current_setting('presence.session_lifetime')::interval < active_timeout
                 THEN 'presence.session_lifetime is shorter than presence.active_timeout, so no session times out.' END,
            CASE WHEN current_setting('presence.notify_payload') = 'off'
                 THEN 'presence.notify_payload is off, so nobody is told of changes.' END);
        ok := found = '';
        detail := CASE WHEN ok THEN 'The settings agree with each other.' ELSE found END;
        hint := CASE WHEN NOT ok THEN 'Change them in postgresql.conf or by ALTER SYSTEM, and reload.' END;
        RETURN NEXT;

        check_name := 'identity';
        found := current_setting('presence.user_id_function', true);
        ok := found IS NULL OR found = ''
              OR (cardinality(parse_ident(found)) > 1
                  AND EXISTS (SELECT FROM pg_proc p
                               WHERE p.oid = to_regprocedure(found || '(uuid)') AND p.prorettype = 'uuid'::regtype));
        detail := CASE WHEN found IS NULL OR found = '' THEN 'A client''s identity is its user''s id.'
                       WHEN ok THEN format('%s finds the user of an identity.', found)
                       ELSE format('%s is no function from uuid to uuid, or has no schema.', found) END;
        hint := CASE WHEN NOT ok THEN 'Set presence.user_id_function to the name of such a function, with its schema.' END;
        RETURN NEXT;

        check_name := 'queue';
        ok := stats.notification_queue_usage < 0.5;
        detail := format('The queue of notifications is %s %% full.', round((stats.notification_queue_usage * 100)::numeric, 1));
        hint := CASE WHEN NOT ok
            THEN 'A session that LISTENs has been in one transaction for long: look for it in pg_stat_activity.' END;
        RETURN NEXT;
    END IF;

    -- The objects

    check_name := 'owner';
    SELECT string_agg(format('%s of %s', c.relname, c.relowner::regrole), ', ' ORDER BY c.relname),
           count(DISTINCT c.relowner) = 1
      INTO found, ok
      FROM pg_class c
     WHERE c.relnamespace = home
       AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state');
    detail := CASE WHEN ok THEN 'All tables have one owner.' ELSE 'The tables have several owners: ' || found || '.' END;
    hint := CASE WHEN NOT ok
        THEN 'The worker writes as the owner of user_sessions: ALTER TABLE ... OWNER TO the same role for all four.' END;
    RETURN NEXT;

    check_name := 'row_security';
    SELECT string_agg(c.relname, ', ' ORDER BY c.relname) INTO found
      FROM pg_class c
     WHERE c.relnamespace = home
       AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state')
       AND NOT c.relrowsecurity;
    ok := found IS NULL;
    detail := CASE WHEN ok THEN 'Row level security is on for every table.'
                   ELSE format('Row level security is off for %s.', found) END;
    hint := CASE WHEN NOT ok THEN 'ALTER TABLE ... ENABLE ROW LEVEL SECURITY, as the owner.' END;
    RETURN NEXT;

    check_name := 'triggers';
    SELECT string_agg(wanted.name, ', ' ORDER BY wanted.name) INTO found
      FROM (VALUES ('presence_before_write', 'O'), ('presence_capture', 'A'), ('presence_capture_truncate', 'A')) wanted (name, enabled)
     WHERE NOT EXISTS (
         SELECT FROM pg_trigger t
          WHERE t.tgrelid = to_regclass(home || '.user_sessions') AND t.tgname = wanted.name
            AND t.tgenabled = wanted.enabled::"char");
    ok := found IS NULL;
    detail := CASE WHEN ok THEN 'The triggers of user_sessions are as they were made.'
                   ELSE format('Not as they were made: %s.', found) END;
    hint := CASE WHEN NOT ok THEN
        'ALTER TABLE ... ENABLE TRIGGER presence_before_write, ENABLE ALWAYS TRIGGER presence_capture, '
        'ENABLE ALWAYS TRIGGER presence_capture_truncate, as the owner. pg_restore --disable-triggers leaves them like this.' END;
    RETURN NEXT;

    check_name := 'services';
    SELECT string_agg(CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, ', ' ORDER BY 1),
           COALESCE(bool_and(a.grantee <> 0 AND pg_get_userbyid(a.grantee) NOT IN ('anon', 'authenticated')), true)
      INTO found, ok
      FROM pg_proc p, LATERAL aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
     WHERE p.oid = to_regprocedure(home || '._service_marker()') AND a.grantee <> p.proowner;
    detail := CASE WHEN found IS NULL THEN 'Nobody but owner, superusers and BYPASSRLS acts for everybody.'
                   ELSE format('These act for everybody: %s.', found) END;
    hint := CASE WHEN NOT ok THEN format('REVOKE EXECUTE ON FUNCTION %s._service_marker() FROM ...', home) END;
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
    detail := CASE WHEN ok THEN 'Nobody has a right that the grant_ functions do not give.'
                   ELSE format('Not given by the grant_ functions: %s.', found) END;
    hint := CASE WHEN NOT ok THEN 'REVOKE what is not meant to be; who may TRUNCATE or UPDATE a table may also lock it.' END;
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
    detail := CASE WHEN ok THEN format('Nobody else may create objects in the schema %s.', home)
                   ELSE format('These may create objects in the schema %s: %s.', home, found) END;
    hint := CASE WHEN NOT ok THEN format('REVOKE CREATE ON SCHEMA %s FROM %s;', home, found) END;
    RETURN NEXT;

    check_name := 'logging';
    ok := (current_setting('log_parameter_max_length') = '0'
           OR (current_setting('log_statement') NOT IN ('all', 'mod')
               AND current_setting('log_min_duration_statement') = '-1'
               AND current_setting('log_min_duration_sample') = '-1'
               AND current_setting('log_transaction_sample_rate')::numeric = 0))
          AND current_setting('log_parameter_max_length_on_error') = '0'
          -- A plan that was made for its parameters has them in it.
          AND (COALESCE(current_setting('auto_explain.log_min_duration', true), '-1') = '-1'
               OR current_setting('auto_explain.log_verbose') = 'off');
    detail := CASE WHEN ok THEN 'Parameters of statements, and so tokens, are not logged.'
                   ELSE 'Parameters of statements are logged, and so are the tokens among them.' END;
    hint := CASE WHEN NOT ok
        THEN 'Set log_parameter_max_length and log_parameter_max_length_on_error to 0 and auto_explain.log_verbose to off, '
             'and pass tokens as parameters, not in the text.' END;
    RETURN NEXT;
END
$function$;
