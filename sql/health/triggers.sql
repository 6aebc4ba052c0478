-- Health check of the triggers: those of the extension, and others that call its trigger functions.

CREATE FUNCTION @extschema@._health_triggers()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET standard_conforming_strings = on
AS $function$
DECLARE
    home text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'pg_presence');
    problems text[] := '{}';
    statements text[] := '{}';
    ours oid[] := '{}';
    expected record;
    found record;
    target text;
    state text;
BEGIN
    FOR expected IN EXECUTE format('SELECT * FROM %s._definitions(''trigger'') d WHERE d.relid IS NOT NULL', home) LOOP
        target := format('%s.%I', home, expected.relation);
        state := CASE WHEN expected.required THEN 'A' ELSE 'O' END;
        SELECT t.oid, t.tgenabled,
               replace(regexp_replace(pg_get_triggerdef(t.oid), '\s+', ' ', 'g'),
                   format(' ON %s ', t.tgrelid::regclass), format(' ON %s ', target)) AS described
          INTO found
          FROM pg_trigger t WHERE t.tgrelid = expected.relid AND t.tgname = expected.name AND NOT t.tgisinternal;
        ours := array_remove(ours || found.oid, NULL);
        CONTINUE WHEN found.tgenabled = state
            AND found.described = format('CREATE TRIGGER %I %s EXECUTE FUNCTION %s.%I()',
                    expected.name, expected.definition, home, expected.fallback);
        problems := problems || format('%s on %s %s', expected.name, expected.relation,
            CASE WHEN found.oid IS NULL THEN 'does not exist'
                 WHEN found.tgenabled = 'D' THEN 'is disabled'
                 WHEN found.tgenabled <> state THEN 'is not enabled as installed'
                 ELSE 'is another trigger' END);
        IF found.described IS DISTINCT FROM format('CREATE TRIGGER %I %s EXECUTE FUNCTION %s.%I()',
               expected.name, expected.definition, home, expected.fallback) THEN
            statements := statements || format('%sCREATE TRIGGER %I %s EXECUTE FUNCTION %s.%I();',
                CASE WHEN found.oid IS NOT NULL THEN format('DROP TRIGGER %I ON %s; ', expected.name, target) END,
                expected.name, expected.definition, home, expected.fallback);
        END IF;
        statements := statements || format('ALTER TABLE %s ENABLE %sTRIGGER %I;', target,
            CASE WHEN expected.required THEN 'ALWAYS ' END, expected.name);
    END LOOP;
    FOR found IN EXECUTE format($query$
        SELECT t.tgname, COALESCE($2 || '.' || quote_ident(d.relation), t.tgrelid::regclass::text) AS target
          FROM pg_trigger t
          LEFT JOIN %1$s._definitions('table') d ON d.relid = t.tgrelid
         WHERE t.tgfoid IN (SELECT to_regprocedure(format('%%s.%%I()', $2, f.fallback))
                              FROM %1$s._definitions('trigger') f)
           AND NOT t.tgisinternal AND t.tgparentid = 0 AND t.oid <> ALL ($1)
         ORDER BY 2, 1
    $query$, home) USING ours, home LOOP
        problems := problems || format('%I on %s calls a trigger function of the extension', found.tgname, found.target);
        statements := statements || format('DROP TRIGGER %I ON %s;', found.tgname, found.target);
    END LOOP;
    RETURN QUERY SELECT 'triggers', problems = '{}',
        CASE WHEN problems = '{}' THEN 'The triggers are as installed.' ELSE array_to_string(problems, '; ') || '.' END,
        NULLIF(array_to_string(statements, ' '), '');
END
$function$;

-- What others have added, and whether it is fired by what the extension writes.
CREATE FUNCTION @extschema@._health_other_triggers()
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
    check_name := 'other_triggers';
    WITH trigger AS (
        SELECT t.tgname AS name, t.tgrelid AS on_table, c.relowner AS owner,
               -- Not fired either, if somebody has taken its mark away.
               t.tgqual IS NULL
                   AND t.tgname IN ('presence_before_write', 'presence_before_truncate', 'presence_capture',
                                    'presence_capture_truncate', 'presence_compare', 'presence_restore')
                   AND EXISTS (SELECT FROM pg_proc p WHERE p.oid = t.tgfoid AND p.pronamespace = home) AS is_ours,
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
           AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state', 'declared_statuses')
    ), judged AS (
        SELECT name, on_table, is_ours,
               is_marked AND NOT EXISTS (SELECT FROM unnest(owners) o WHERE NOT pg_has_role(o, owner, 'USAGE')) AS is_trusted
          FROM trigger
    ), foreign_key AS (
        SELECT k.conname AS name, k.conrelid AS on_table, pg_has_role(f.relowner, c.relowner, 'USAGE') AS is_trusted
          FROM pg_constraint k JOIN pg_class c ON c.oid = k.confrelid JOIN pg_class f ON f.oid = k.conrelid
         WHERE k.contype = 'f' AND c.relnamespace = home AND k.conparentid = 0
           AND c.relname IN ('user_sessions', 'user_presence', 'presence_changes', '_feed_state', 'declared_statuses')
    )
    SELECT string_agg(format('%s on %s%s', name, on_table::regclass, CASE WHEN is_trusted THEN '' ELSE ' (not fired)' END),
                      ', ' ORDER BY name),
           string_agg(mending, ' ' ORDER BY name) FILTER (WHERE NOT is_trusted)
      INTO found, mend
      FROM (SELECT name, on_table, is_trusted,
                   CASE WHEN is_ours THEN format('ALTER TRIGGER %I ON %s DEPENDS ON EXTENSION pg_presence;', name,
                                                 on_table::regclass)
                        ELSE format('DROP TRIGGER %I ON %s;', name, on_table::regclass) END
              FROM judged
             WHERE NOT (is_ours AND is_trusted)
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
END
$function$;
