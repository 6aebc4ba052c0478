-- Health checks of the tables and their columns.
--
-- These and the checks of other definitions compare one kind of object with what the install script has created. The hint
-- of one that fails is a list of SQL statements that restore it, for the owner to run, in the order of the checks.

-- The tables, before all others: their statements use the names that the tables are to have.
CREATE FUNCTION @extschema@._health_tables()
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
    loss text := '';
    expected record;
    found record;
    rule record;
BEGIN
    FOR expected IN EXECUTE format('SELECT * FROM %s._definitions(''table'')', home) LOOP
        IF expected.relid IS NULL THEN
            problems := problems || format('%s does not exist', expected.name);
            loss := ' DROP EXTENSION deletes the rows of the other tables and all grants.';
            -- Nothing less brings back a table together with its membership in the extension.
            statements := statements
                || format('DROP EXTENSION pg_presence; CREATE EXTENSION pg_presence SCHEMA %s;', home);
            CONTINUE;
        END IF;
        SELECT c.relname, c.relnamespace::regnamespace::text AS schema, c.relkind, c.relpersistence, c.relreplident
          INTO found
          FROM pg_class c WHERE c.oid = expected.relid;
        IF found.schema <> home THEN
            problems := problems || format('%s is in schema %s', expected.name, found.schema);
            statements := statements || format('ALTER TABLE %s SET SCHEMA %s;', expected.relid::regclass, home);
        END IF;
        IF found.relname <> expected.name THEN
            problems := problems || format('%s is named %I', expected.name, found.relname);
            statements := statements || format('ALTER TABLE %s.%I RENAME TO %I;', home, found.relname, expected.name);
        END IF;
        IF found.relpersistence <> 'p' THEN
            problems := problems || format('%s is unlogged', expected.name);
            statements := statements || format('ALTER TABLE %s.%I SET LOGGED;', home, expected.name);
        END IF;
        IF found.relreplident = 'n' OR expected.definition = 'FULL' AND found.relreplident = 'd' THEN
            problems := problems || format('%s has no replica identity', expected.name);
            statements := statements
                || format('ALTER TABLE %s.%I REPLICA IDENTITY %s;', home, expected.name, expected.definition);
        END IF;
        FOR rule IN SELECT r.rulename FROM pg_rewrite r WHERE r.ev_class = expected.relid LOOP
            problems := problems || format('%s has the rule %I', expected.name, rule.rulename);
            statements := statements || format('DROP RULE %I ON %s.%I;', rule.rulename, home, expected.name);
        END LOOP;
    END LOOP;
    RETURN QUERY SELECT 'tables', problems = '{}',
        CASE WHEN problems = '{}' THEN 'The tables are as installed.' ELSE array_to_string(problems, '; ') || '.' || loss END,
        NULLIF(array_to_string(statements, ' '), '');
END
$function$;

-- Columns: names and types, NOT NULL, defaults.
CREATE FUNCTION @extschema@._health_columns()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET standard_conforming_strings = on
AS $function$
DECLARE
    home text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'pg_presence');
    of_columns text[] := '{}';
    for_columns text[] := '{}';
    of_nulls text[] := '{}';
    for_nulls text[] := '{}';
    of_defaults text[] := '{}';
    for_defaults text[] := '{}';
    emptied text[] := '{}';
    thinned text[] := '{}';
    names text[];
    expected record;
    actual record;
    policy record;
    target text;
    empty text;
    described text;
BEGIN
    FOR expected IN EXECUTE format($query$
        SELECT d.*, r.found AS renamed
          FROM %1$s._definitions('column') d
          LEFT JOIN %1$s._renamed_columns() r ON r.relid = d.relid AND r.name = d.name
         WHERE d.relid IS NOT NULL
    $query$, home) LOOP
        target := format('%s.%I', home, expected.relation);
        -- What others refer to cannot be truncated. The trigger that sees deletions needs all columns; what it misses, the
        -- worker finds out.
        empty := format(CASE
            WHEN NOT EXISTS (SELECT FROM pg_constraint c WHERE c.contype = 'f' AND c.confrelid = expected.relid)
                THEN 'TRUNCATE %1$s;'
            WHEN expected.relation = 'user_sessions'
                THEN 'ALTER TABLE %1$s DISABLE TRIGGER presence_capture; DELETE FROM %1$s; '
                     'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER presence_capture;'
            ELSE 'DELETE FROM %1$s;' END, target);
        names := names || format('%s.%s', expected.relid, COALESCE(expected.renamed, expected.name));
        SELECT a.attnum, a.attnotnull, a.attgenerated, a.attidentity, format_type(a.atttypid, a.atttypmod) AS type,
               t.typcategory AS category, pg_get_expr(d.adbin, d.adrelid) AS initial
          INTO actual
          FROM pg_attribute a
          JOIN pg_type t ON t.oid = a.atttypid
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = expected.relid AND a.attname = COALESCE(expected.renamed, expected.name)
           AND NOT a.attisdropped;
        IF NOT FOUND THEN
            of_columns := of_columns || format('%s.%s does not exist', expected.relation, expected.name);
            -- The values are lost. Where there is no default, no row can be kept.
            IF expected.required AND (expected.fallback IS NULL OR expected.name IN ('id', 'user_id', 'auth_id')) THEN
                emptied := emptied || expected.relation;
                for_columns := for_columns || empty;
            END IF;
            for_columns := for_columns || format('ALTER TABLE %s ADD COLUMN %I %s%s%s;', target, expected.name,
                expected.definition, CASE WHEN expected.required THEN ' NOT NULL' END, ' DEFAULT ' || expected.fallback);
            CONTINUE;
        END IF;
        IF expected.renamed IS NOT NULL THEN
            of_columns := of_columns || format('%s.%s is named %I', expected.relation, expected.name, expected.renamed);
            for_columns := for_columns
                || format('ALTER TABLE %s RENAME COLUMN %I TO %I;', target, expected.renamed, expected.name);
        END IF;
        IF actual.type <> expected.definition THEN
            of_columns := of_columns || format('%s.%s is of type %s instead of %s',
                expected.relation, expected.name, actual.type, expected.definition);
            FOR policy IN
                SELECT p.polname FROM pg_depend d JOIN pg_policy p ON p.oid = d.objid
                 WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_class'::regclass
                   AND d.refobjid = expected.relid AND d.refobjsubid = actual.attnum
                 GROUP BY 1
            LOOP
                for_columns := for_columns || format('DROP POLICY %I ON %s;', policy.polname, target);
            END LOOP;
            -- Values that cannot be converted are lost.
            IF actual.category IN ('S', 'U') AND actual.type <> 'uuid' OR expected.definition = 'text'
               OR actual.category = 'D' AND expected.definition LIKE 'timestamp%'
               OR actual.category = 'N' AND expected.definition IN ('bigint', 'boolean') THEN
                described := format('%I::text::%s', expected.name, expected.definition);
            ELSE
                emptied := emptied || expected.relation;
                for_columns := for_columns || empty;
                described := 'NULL';
            END IF;
            for_columns := for_columns || format('ALTER TABLE %1$s ALTER %2$I DROP DEFAULT, ALTER %2$I TYPE %3$s USING %4$s%5$s;',
                target, expected.name, expected.definition, described,
                format(', ALTER %I SET ', expected.name) || 'DEFAULT ' || expected.fallback);
        ELSIF COALESCE(expected.fallback, '') <> COALESCE(btrim(regexp_replace(actual.initial, '\s+', ' ', 'g')), '') THEN
            of_defaults := of_defaults || format('%s.%s %s', expected.relation, expected.name,
                CASE WHEN expected.fallback IS NULL THEN 'has a default' WHEN actual.initial IS NULL THEN 'has no default'
                     ELSE 'has another default' END);
            for_defaults := for_defaults || format('ALTER TABLE %s ALTER %I %s;', target, expected.name,
                CASE WHEN actual.attidentity <> '' THEN 'DROP IDENTITY' WHEN actual.attgenerated <> '' THEN 'DROP EXPRESSION'
                     ELSE COALESCE('SET DEFAULT ' || expected.fallback, 'DROP DEFAULT') END);
        END IF;
        IF expected.required AND NOT actual.attnotnull THEN
            of_nulls := of_nulls || format('%s.%s allows nulls', expected.relation, expected.name);
            thinned := thinned || expected.relation;
            for_nulls := for_nulls || format('DELETE FROM %1$s WHERE %2$I IS NULL; ALTER TABLE %1$s ALTER %2$I SET NOT NULL;',
                target, expected.name);
        ELSIF actual.attnotnull AND NOT expected.required THEN
            of_nulls := of_nulls || format('%s.%s does not allow nulls', expected.relation, expected.name);
            for_nulls := for_nulls || format('ALTER TABLE %s ALTER %I DROP NOT NULL;', target, expected.name);
        END IF;
    END LOOP;
    -- Columns of others that no statement of the extension gives a value.
    FOR actual IN EXECUTE format($query$
        SELECT t.relation, a.attname
          FROM %s._definitions('table') t
          JOIN pg_attribute a ON a.attrelid = t.relid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
           AND format('%%s.%%s', t.relid, a.attname) <> ALL ($1)
    $query$, home) USING COALESCE(names, '{}') LOOP
        of_nulls := of_nulls || format('%s has the column %I, which needs a value', actual.relation, actual.attname);
        for_nulls := for_nulls || format('ALTER TABLE %s.%I ALTER %I DROP NOT NULL;', home, actual.relation, actual.attname);
    END LOOP;
    RETURN QUERY SELECT 'columns', of_columns = '{}',
        CASE WHEN of_columns = '{}' THEN 'The columns are as installed.' ELSE array_to_string(of_columns, '; ') || '.'
                || COALESCE(' The statements delete all rows of '
                            || (SELECT string_agg(DISTINCT e, ' and ') FROM unnest(emptied) e) || '.', '') END,
        NULLIF(array_to_string(for_columns, ' '), '');
    RETURN QUERY SELECT 'not_null', of_nulls = '{}',
        CASE WHEN of_nulls = '{}' THEN 'The columns allow nulls as installed.' ELSE array_to_string(of_nulls, '; ') || '.'
                || COALESCE(' The statements delete the rows with nulls of '
                            || (SELECT string_agg(DISTINCT t, ' and ') FROM unnest(thinned) t) || '.', '') END,
        NULLIF(array_to_string(for_nulls, ' '), '');
    RETURN QUERY SELECT 'defaults', of_defaults = '{}',
        CASE WHEN of_defaults = '{}' THEN 'The defaults are as installed.' ELSE array_to_string(of_defaults, '; ') || '.' END,
        NULLIF(array_to_string(for_defaults, ' '), '');
END
$function$;
