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
    mend text;
    services oid[];
    active_timeout interval;
    heartbeat interval;
    flush interval;
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

    -- Library, worker and settings

    check_name := 'preload';
    ok := EXISTS (SELECT FROM pg_settings s WHERE s.name = 'presence.max_sessions');
    detail := CASE WHEN ok THEN 'The library was loaded via shared_preload_libraries.'
                   ELSE 'The library was not loaded via shared_preload_libraries.' END;
    hint := CASE WHEN NOT ok
                 THEN 'Add pg_presence to shared_preload_libraries in postgresql.conf and restart the server.' END;
    RETURN NEXT;

    IF ok THEN
        BEGIN
            EXECUTE format('SELECT s.* FROM %s.presence_stats s', home) INTO stats;
        EXCEPTION WHEN OTHERS THEN
            check_name := 'statistics';
            ok := false;
            detail := format('The statistics cannot be read: %s.', SQLERRM);
            hint := 'Restore the objects that the other checks name, or create the extension again.';
            RETURN NEXT;
        END;
    END IF;

    IF ok THEN

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
        BEGIN
            ok := found IS NULL OR found = ''
                  OR (cardinality(parse_ident(found)) > 1
                      AND EXISTS (SELECT FROM pg_proc p
                                   WHERE p.oid = to_regprocedure(found || '(uuid)')
                                     AND p.prorettype = 'uuid'::regtype AND p.prokind = 'f' AND NOT p.proretset));
        EXCEPTION WHEN OTHERS THEN
            -- Not a name.
            ok := false;
        END;
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

        check_name := 'unwritable';
        ok := stats.set_aside = 0;
        detail := CASE WHEN ok THEN 'Everything that the worker has to write can be written.'
                       ELSE format('The worker could not write and will retry: %s. Last error: %s (%s).',
                                   stats.set_aside, stats.last_error, stats.last_error_at) END;
        hint := CASE WHEN NOT ok
            THEN 'Remove what the error names: a trigger, constraint, foreign key, publication with a row filter, or lock. '
                 'The worker writes the rest meanwhile.' END;
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
      FROM (VALUES ('presence_before_write', 'O'), ('presence_before_truncate', 'O'), ('presence_capture', 'A'), ('presence_capture_truncate', 'A'))
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

    check_name := 'other_triggers';
    WITH trigger AS (
        SELECT t.tgname AS name, t.tgrelid AS on_table, c.relowner AS owner,
               EXISTS (SELECT FROM pg_depend x JOIN pg_extension e ON e.oid = x.refobjid AND e.extname = 'pg_presence'
                        WHERE x.classid = 'pg_trigger'::regclass AND x.objid = t.oid AND x.deptype = 'x'
                          AND x.refclassid = 'pg_extension'::regclass) AS is_marked,
               ARRAY(SELECT p.proowner
                       FROM pg_depend x
                       LEFT JOIN pg_operator o ON x.refclassid = 'pg_operator'::regclass AND o.oid = x.refobjid
                       JOIN pg_proc p ON p.oid = CASE x.refclassid WHEN 'pg_proc'::regclass THEN x.refobjid
                                                                   ELSE o.oprcode END
                      WHERE x.classid = 'pg_trigger'::regclass AND x.objid = t.oid) AS owners
          FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
         WHERE c.relnamespace = home AND NOT t.tgisinternal
           AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state')
           AND t.tgname NOT LIKE 'presence\_%'
    ), judged AS (
        SELECT name, on_table,
               is_marked AND NOT EXISTS (SELECT FROM unnest(owners) o WHERE NOT pg_has_role(o, owner, 'USAGE')) AS is_trusted
          FROM trigger
    ), foreign_key AS (
        SELECT k.conname AS name, k.conrelid AS on_table, pg_has_role(f.relowner, c.relowner, 'USAGE') AS is_trusted
          FROM pg_constraint k JOIN pg_class c ON c.oid = k.confrelid JOIN pg_class f ON f.oid = k.conrelid
         WHERE k.contype = 'f' AND c.relnamespace = home AND k.conparentid = 0
           AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state')
    )
    SELECT string_agg(format('%s on %s%s', name, on_table::regclass, CASE WHEN is_trusted THEN '' ELSE ' (not fired)' END),
                      ', ' ORDER BY name),
           string_agg(mending, ' ' ORDER BY name) FILTER (WHERE NOT is_trusted)
      INTO found, mend
      FROM (SELECT name, on_table, is_trusted, format('DROP TRIGGER %I ON %s;', name, on_table::regclass) FROM judged
            UNION ALL
            SELECT name, on_table, is_trusted,
                   format('ALTER TABLE %s DROP CONSTRAINT %I;', on_table::regclass, name) FROM foreign_key
           ) added (name, on_table, is_trusted, mending);
    ok := mend IS NULL;
    detail := CASE WHEN found IS NULL THEN 'Nobody has added triggers or foreign keys.'
                   WHEN ok THEN format('The owner or a superuser has added: %s.', found)
                   ELSE format('Added triggers and foreign keys, of which others'' are not fired: %s.', found) END;
    hint := CASE WHEN NOT ok
        THEN format('Run %s Or, where a trigger is the owner''s: ALTER TRIGGER ... DEPENDS ON EXTENSION pg_presence.',
                    mend) END;
    RETURN NEXT;

    check_name := 'locked_out';
    services := ARRAY(
        SELECT a.grantee FROM pg_type t, LATERAL aclexplode(t.typacl) a
         WHERE t.typnamespace = home AND t.typname = '_service_marker');
    -- Each role that grant_...() has let in, by a function that no other kind of role has; a service by the marker.
    WITH let_in AS (
        SELECT kind.name, a.grantee
          FROM (VALUES ('holder', 'heartbeat_by_token'), ('client', 'start_session'), ('reader', 'presence_of'))
               kind (name, function)
          JOIN pg_proc p ON p.pronamespace = home AND p.proname = kind.function,
               LATERAL aclexplode(p.proacl) a
         WHERE a.grantee NOT IN (0, p.proowner)
        UNION
        SELECT 'service', s FROM unnest(services) s WHERE s <> 0
    )
    SELECT string_agg(DISTINCT format('SELECT %s.grant_%s(%L);', home, l.name, pg_get_userbyid(l.grantee)), ' ')
      INTO found
      FROM let_in l
     WHERE NOT has_schema_privilege(l.grantee, home, 'USAGE')
        OR EXISTS (SELECT FROM pg_proc f
                    WHERE f.pronamespace = home AND NOT has_function_privilege(l.grantee, f.oid, 'EXECUTE')
                      AND (f.proname IN ('is_service', 'presence_user_id', 'presence_auth_id', 'presence_id',
                                         'token_digest')
                           OR l.name = 'service'
                              AND f.proname IN ('start_session', 'start_sessions', 'presence_of', 'forget_user',
                                                'heartbeat_by_token')))
        OR l.name IN ('client', 'service')
           AND NOT (has_table_privilege(l.grantee, home || '.user_sessions', 'SELECT')
                    AND has_table_privilege(l.grantee, home || '.user_sessions', 'INSERT')
                    AND has_any_column_privilege(l.grantee, home || '.user_sessions', 'UPDATE'))
        OR l.name IN ('reader', 'service')
           AND NOT has_table_privilege(l.grantee, home || '.user_presence', 'SELECT');
    ok := found IS NULL;
    detail := CASE WHEN ok THEN 'Every role that has been let in has the privileges that it needs.'
                   ELSE 'Roles that have been let in lack privileges that have been revoked since.' END;
    hint := CASE WHEN NOT ok THEN format('Run %s', found) END;
    RETURN NEXT;

    check_name := 'services';
    SELECT string_agg(pg_get_userbyid(a.grantee)::text, ', ' ORDER BY 1)
               FILTER (WHERE pg_get_userbyid(a.grantee) <> 'pg_database_owner'),
           string_agg(format('REVOKE USAGE ON TYPE %s._service_marker FROM %s;', home,
                             CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END), ' ' ORDER BY 1)
               FILTER (WHERE a.grantee = 0 OR pg_get_userbyid(a.grantee) IN ('anon', 'authenticated'))
      INTO found, mend
      FROM pg_type t, LATERAL aclexplode(COALESCE(t.typacl, acldefault('T', t.typowner))) a
     WHERE t.typnamespace = home AND t.typname = '_service_marker' AND a.grantee <> t.typowner;
    ok := mend IS NULL;
    detail := CASE WHEN found IS NULL THEN 'Only the owners, superusers and roles with BYPASSRLS are services.'
                   ELSE format('These roles are services: %s.', found) END;
    hint := CASE WHEN NOT ok THEN format('Run %s', mend) END;
    RETURN NEXT;

    check_name := 'grants';
    SELECT string_agg(DISTINCT format('%s on %s to %s', g.privilege, g.object,
                   CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.grantee)::text END), '; '),
           string_agg(DISTINCT format('REVOKE %s ON %s %s FROM %s;', g.privilege, g.kind, g.object,
                   CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END), ' ')
      INTO found, mend
          FROM (
              SELECT a.privilege_type AS privilege, 'TABLE' AS kind, c.oid::regclass::text AS object, a.grantee
                FROM pg_class c, LATERAL aclexplode(c.relacl) a
               WHERE c.relnamespace = home
                 AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state')
                 AND a.grantee <> c.relowner
                 AND (a.grantee = 0
                      OR c.relname = '_feed_state'
                      OR a.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN')
                      OR (c.relname <> 'user_sessions' AND a.privilege_type <> 'SELECT')
                      OR (a.privilege_type IN ('UPDATE', 'DELETE')
                          AND NOT services @> ARRAY[a.grantee]))
              UNION ALL
              SELECT a.privilege_type, 'FUNCTION', p.oid::regprocedure::text, a.grantee
                FROM pg_proc p
                JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
                                   AND e.extname = 'pg_presence',
                     LATERAL aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
               WHERE a.grantee <> p.proowner
                 AND (p.prorettype = 'trigger'::regtype
                      OR (p.proname LIKE 'grant\_%' AND pg_get_userbyid(a.grantee) <> 'pg_database_owner')
                      OR p.proname LIKE '\_grant\_%'
                      OR (a.grantee = 0
                          AND p.proname NOT IN ('is_service', 'presence_user_id', 'presence_auth_id', 'presence_id',
                                                'token_digest')))
          ) g;
    ok := found IS NULL;
    detail := CASE WHEN ok THEN 'No privileges exceed those granted by the grant_*() functions.'
                   ELSE format('Privileges beyond those granted by the grant_*() functions: %s.', found) END;
    hint := CASE WHEN NOT ok
        THEN format('Run %s A role that may update or truncate a table may also lock it.', mend) END;
    RETURN NEXT;

    check_name := 'schema_owner';
    SELECT pg_get_userbyid(n.nspowner), format('ALTER SCHEMA %s OWNER TO %I;', home, pg_get_userbyid(d.datdba)),
           n.nspowner = d.datdba OR r.rolsuper OR r.rolname = 'pg_database_owner' OR n.nspowner = e.extowner
      INTO found, mend, ok
      FROM pg_namespace n
      JOIN pg_database d ON d.datname = current_database()
      JOIN pg_extension e ON e.extname = 'pg_presence'
      LEFT JOIN pg_roles r ON r.oid = n.nspowner
     WHERE n.oid = home;
    detail := CASE WHEN ok THEN format('Schema %s belongs to %s.', home, found)
                   ELSE format('The owner of schema %s, %s, could replace the extension''s functions.', home, found) END;
    hint := CASE WHEN NOT ok THEN format('Run %s', mend) END;
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
