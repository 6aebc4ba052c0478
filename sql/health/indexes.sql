-- Health checks of the constraints and indexes.

CREATE FUNCTION @extschema@._health_constraints()
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
    expected record;
    target text;
    described text;
    other text;
BEGIN
    FOR expected IN EXECUTE format('SELECT * FROM %s._definitions(''constraint'') d WHERE d.relid IS NOT NULL', home) LOOP
        target := format('%s.%I', home, expected.relation);
        EXECUTE format('SELECT %s._comparable(pg_get_constraintdef(c.oid), c.conrelid) FROM pg_constraint c
                         WHERE c.conrelid = $1 AND c.conname = $2', home)
           INTO described USING expected.relid, expected.name;
        CONTINUE WHEN described = expected.definition;
        EXECUTE format('SELECT c.conname FROM pg_constraint c
                         WHERE c.conrelid = $1 AND %s._comparable(pg_get_constraintdef(c.oid), c.conrelid) = $2
                         ORDER BY c.conname LIMIT 1', home)
           INTO other USING expected.relid, expected.definition;
        problems := problems || CASE
            WHEN described IS NOT NULL THEN format('%s on %s is %s', expected.name, expected.relation, described)
            WHEN other IS NOT NULL THEN format('%s on %s is named %I', expected.name, expected.relation, other)
            ELSE format('%s on %s does not exist', expected.name, expected.relation) END;
        statements := statements || CASE
            WHEN described IS NULL AND other IS NOT NULL
                THEN format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I;', target, other, expected.name)
            ELSE format('%s%sALTER TABLE %s ADD CONSTRAINT %I %s;',
                CASE WHEN described IS NOT NULL THEN format('ALTER TABLE %s DROP CONSTRAINT %I; ', target, expected.name) END,
                CASE WHEN described IS NULL AND expected.definition LIKE 'PRIMARY KEY%'
                     THEN format('DROP INDEX IF EXISTS %s.%I; ', home, expected.name) END,
                target, expected.name, expected.definition) END;
    END LOOP;
    RETURN QUERY SELECT 'constraints', problems = '{}',
        CASE WHEN problems = '{}' THEN 'The constraints are as installed.' ELSE array_to_string(problems, '; ') || '.' END,
        NULLIF(array_to_string(statements, ' '), '');
END
$function$;

CREATE FUNCTION @extschema@._health_indexes()
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
    expected record;
    described text;
    other text;
BEGIN
    FOR expected IN EXECUTE format('SELECT * FROM %s._definitions(''index'') d WHERE d.relid IS NOT NULL', home) LOOP
        -- Of the definition, what follows the name of the table, without storage parameters.
        EXECUTE format($query$
            SELECT max(i.described) FILTER (WHERE i.name = $2),
                   min(i.name) FILTER (WHERE i.described = $3)
              FROM (SELECT c.relname::text AS name,
                           CASE WHEN NOT (x.indisvalid AND x.indisready) THEN 'invalid'
                                WHEN x.indisunique <> $4 THEN CASE WHEN $4 THEN 'not unique' ELSE 'unique' END
                                ELSE regexp_replace(substring(%s._comparable(pg_get_indexdef(x.indexrelid), $1)
                                         FROM 'USING .*$'), ' WITH \([^)]*\)', '') END AS described
                      FROM pg_index x
                      JOIN pg_class c ON c.oid = x.indexrelid
                     WHERE x.indrelid = $1) i
        $query$, home) INTO described, other USING expected.relid, expected.name, expected.definition, expected.required;
        CONTINUE WHEN described = expected.definition;
        problems := problems || CASE
            WHEN described IS NOT NULL THEN format('%s on %s is %s', expected.name, expected.relation, described)
            WHEN other IS NOT NULL THEN format('%s on %s is named %I', expected.name, expected.relation, other)
            ELSE format('%s on %s does not exist', expected.name, expected.relation) END;
        statements := statements || CASE
            WHEN described IS NULL AND other IS NOT NULL
                THEN format('ALTER INDEX %s.%I RENAME TO %I;', home, other, expected.name)
            ELSE format('%sCREATE %sINDEX %I ON %s.%I %s;',
                CASE WHEN described IS NOT NULL THEN format('DROP INDEX %s.%I; ', home, expected.name) END,
                CASE WHEN expected.required THEN 'UNIQUE ' END, expected.name, home, expected.relation,
                expected.definition) END;
    END LOOP;
    RETURN QUERY SELECT 'indexes', problems = '{}',
        CASE WHEN problems = '{}' THEN 'The indexes are as installed.' ELSE array_to_string(problems, '; ') || '.' END,
        NULLIF(array_to_string(statements, ' '), '');
END
$function$;
