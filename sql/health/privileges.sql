-- Health checks of privileges.

CREATE FUNCTION @extschema@._health_locked_out()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $function$
DECLARE
    home regnamespace := (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'pg_presence');
    found text;
    services oid[];
BEGIN
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
    SELECT string_agg(DISTINCT format('SELECT %s.grant_%s(%L);', home, l.name, l.grantee::regrole), ' ')
      INTO found
      FROM let_in l
     WHERE NOT has_schema_privilege(l.grantee, home, 'USAGE')
        OR EXISTS (SELECT FROM pg_proc f
                    WHERE f.pronamespace = home AND NOT has_function_privilege(l.grantee, f.oid, 'EXECUTE')
                      AND (f.proname IN ('is_service', 'presence_user_id', 'presence_auth_id', 'presence_id',
                                         'token_digest')
                           OR l.name = 'service'
                              AND f.proname IN ('start_session', 'start_sessions', 'presence_of', 'forget_user',
                                                'heartbeat_by_token', 'heartbeat_idle', 'heartbeat_idle_by_token',
                                                'set_status', 'clear_status', 'set_invisible', 'own_presence')))
        OR l.name IN ('client', 'service')
           AND NOT (has_table_privilege(l.grantee, home || '.user_sessions', 'SELECT')
                    AND has_table_privilege(l.grantee, home || '.user_sessions', 'INSERT')
                    AND has_any_column_privilege(l.grantee, home || '.user_sessions', 'UPDATE')
                    AND has_table_privilege(l.grantee, home || '.declared_statuses', 'SELECT'))
        OR l.name = 'service'
           AND NOT (has_table_privilege(l.grantee, home || '.declared_statuses', 'INSERT')
                    AND has_table_privilege(l.grantee, home || '.declared_statuses', 'UPDATE')
                    AND has_table_privilege(l.grantee, home || '.declared_statuses', 'DELETE'))
        OR l.name IN ('reader', 'service')
           AND NOT has_table_privilege(l.grantee, home || '.user_presence', 'SELECT');
    ok := found IS NULL;
    detail := CASE WHEN ok THEN 'Every role that has been let in has the privileges that it needs.'
                   ELSE 'Roles that have been let in lack privileges that have been revoked since.' END;
    hint := CASE WHEN NOT ok THEN format('Run %s', found) END;
    RETURN NEXT;
END
$function$;

CREATE FUNCTION @extschema@._health_services()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $function$
DECLARE
    home regnamespace := (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'pg_presence');
    found text;
    mend text;
BEGIN
    check_name := 'services';
    SELECT string_agg(pg_get_userbyid(a.grantee)::text, ', ' ORDER BY 1)
               FILTER (WHERE pg_get_userbyid(a.grantee) <> 'pg_database_owner'),
           string_agg(DISTINCT CASE WHEN a.grantor = t.typowner
                   THEN format('REVOKE USAGE ON TYPE %s._service_marker FROM %s CASCADE;', home,
                               CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
                   ELSE format('REVOKE GRANT OPTION FOR USAGE ON TYPE %s._service_marker FROM %s CASCADE;', home,
                               a.grantor::regrole) END, ' ')
               FILTER (WHERE a.grantee = 0 OR pg_get_userbyid(a.grantee) IN ('anon', 'authenticated'))
      INTO found, mend
      FROM pg_type t, LATERAL aclexplode(COALESCE(t.typacl, acldefault('T', t.typowner))) a
     WHERE t.typnamespace = home AND t.typname = '_service_marker' AND a.grantee <> t.typowner;
    ok := mend IS NULL;
    detail := CASE WHEN found IS NULL THEN 'Only the owners, superusers and roles with BYPASSRLS are services.'
                   ELSE format('These roles are services: %s.', found) END;
    hint := CASE WHEN NOT ok THEN format('Run %s', mend) END;
    RETURN NEXT;
END
$function$;

CREATE FUNCTION @extschema@._health_grants()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $function$
DECLARE
    home regnamespace := (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'pg_presence');
    found text;
    mend text;
    services oid[];
BEGIN
    check_name := 'grants';
    services := ARRAY(
        SELECT a.grantee FROM pg_type t, LATERAL aclexplode(t.typacl) a
         WHERE t.typnamespace = home AND t.typname = '_service_marker');
    SELECT string_agg(DISTINCT format('%s on %s to %s', g.privilege, g.object,
                   CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.grantee)::text END), '; '),
           -- Only its grantor can revoke a privilege, or whoever the grantor has the grant option from.
           string_agg(DISTINCT CASE WHEN g.grantor = g.owner
                   THEN format('REVOKE %s ON %s %s FROM %s CASCADE;', g.privilege, g.kind, g.object,
                               CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END)
                   ELSE format('REVOKE GRANT OPTION FOR %s ON %s %s FROM %s CASCADE;', g.privilege, g.kind, g.object,
                               g.grantor::regrole) END, ' ')
      INTO found, mend
          FROM (
              SELECT a.privilege_type AS privilege, 'TABLE' AS kind, c.oid::regclass::text AS object, a.grantee,
                     a.grantor, c.relowner AS owner
                FROM pg_class c, LATERAL aclexplode(c.relacl) a
               WHERE c.relnamespace = home
                 AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state', 'declared_statuses')
                 AND a.grantee <> c.relowner
                 AND (a.grantee = 0
                      OR c.relname = '_feed_state'
                      OR a.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN')
                      OR (c.relname NOT IN ('user_sessions', 'declared_statuses') AND a.privilege_type <> 'SELECT')
                      OR ((a.privilege_type IN ('UPDATE', 'DELETE')
                           OR c.relname = 'declared_statuses' AND a.privilege_type = 'INSERT')
                          AND NOT services @> ARRAY[a.grantee]))
              UNION ALL
              SELECT format('%s (%I)', a.privilege_type, x.attname), 'TABLE', c.oid::regclass::text, a.grantee,
                     a.grantor, c.relowner
                FROM pg_class c
                JOIN pg_attribute x ON x.attrelid = c.oid AND NOT x.attisdropped,
                     LATERAL aclexplode(x.attacl) a
               WHERE c.relnamespace = home
                 AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state', 'declared_statuses')
                 AND a.grantee <> c.relowner
                 AND (a.grantee = 0
                      OR c.relname = '_feed_state'
                      OR a.privilege_type = 'REFERENCES'
                      OR (c.relname <> 'user_sessions' AND a.privilege_type <> 'SELECT'))
              UNION ALL
              SELECT a.privilege_type, 'FUNCTION', p.oid::regprocedure::text, a.grantee, a.grantor, p.proowner
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
END
$function$;

CREATE FUNCTION @extschema@._health_schema_owner()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $function$
DECLARE
    home regnamespace := (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'pg_presence');
    found text;
    mend text;
BEGIN
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
END
$function$;

CREATE FUNCTION @extschema@._health_schema()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $function$
DECLARE
    home regnamespace := (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'pg_presence');
    found text;
    mend text;
BEGIN
    check_name := 'schema';
    SELECT string_agg(DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, ', '),
           string_agg(DISTINCT CASE WHEN a.grantor = n.nspowner
                   THEN format('REVOKE CREATE ON SCHEMA %s FROM %s CASCADE;', home,
                               CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
                   ELSE format('REVOKE GRANT OPTION FOR CREATE ON SCHEMA %s FROM %s CASCADE;', home,
                               a.grantor::regrole) END, ' ')
      INTO found, mend
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
    hint := CASE WHEN NOT ok THEN format('Run %s', mend) END;
    RETURN NEXT;
END
$function$;
