-- Health checks of row-level security, its policies, and the owner, to whom it does not apply.

CREATE FUNCTION @extschema@._health_policies()
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
BEGIN
    FOR expected IN EXECUTE format('SELECT * FROM %s._definitions(''policy'') d WHERE d.relid IS NOT NULL', home) LOOP
        target := format('%s.%I', home, expected.relation);
        EXECUTE format($query$
            SELECT p.oid,
                   CASE WHEN p.polpermissive AND p.polroles = '{0}' THEN concat(
                       CASE p.polcmd WHEN 'r' THEN 'FOR SELECT' WHEN 'a' THEN 'FOR INSERT' WHEN 'w' THEN 'FOR UPDATE'
                                     WHEN 'd' THEN 'FOR DELETE' ELSE 'FOR ALL' END,
                       ' USING (' || %1$s._comparable(pg_get_expr(p.polqual, p.polrelid), $1) || ')',
                       ' WITH CHECK (' || %1$s._comparable(pg_get_expr(p.polwithcheck, p.polrelid), $1) || ')') END AS described
              FROM pg_policy p WHERE p.polrelid = $1 AND p.polname = $2
        $query$, home) INTO found USING expected.relid, expected.name;
        ours := array_remove(ours || found.oid, NULL);
        CONTINUE WHEN found.described = expected.definition;
        problems := problems || format('%s on %s %s', expected.name, expected.relation,
            CASE WHEN found.oid IS NULL THEN 'does not exist' ELSE 'is another policy' END);
        statements := statements || format('DROP POLICY IF EXISTS %1$I ON %2$s; CREATE POLICY %1$I ON %2$s %3$s;',
            expected.name, target, expected.definition);
    END LOOP;
    -- A permissive policy lets more rows through; on the other tables every row is visible to whoever may read them.
    FOR found IN EXECUTE format($query$
        SELECT p.polname, d.relation
          FROM %s._definitions('table') d
          JOIN pg_policy p ON p.polrelid = d.relid
         WHERE d.relation IN ('user_sessions', '_feed_state', 'declared_statuses') AND p.polpermissive AND p.oid <> ALL ($1)
    $query$, home) USING ours LOOP
        problems := problems || format('%I on %s lets more rows through', found.polname, found.relation);
        statements := statements || format('DROP POLICY %I ON %s.%I;', found.polname, home, found.relation);
    END LOOP;
    RETURN QUERY SELECT 'policies', problems = '{}',
        CASE WHEN problems = '{}' THEN 'The policies are as installed.' ELSE array_to_string(problems, '; ') || '.' END,
        NULLIF(array_to_string(statements, ' '), '');

    problems := '{}';
    statements := '{}';
    FOR found IN EXECUTE format($query$
        SELECT d.relation, c.relrowsecurity, c.relforcerowsecurity
          FROM %s._definitions('table') d JOIN pg_class c ON c.oid = d.relid
    $query$, home) LOOP
        IF NOT found.relrowsecurity THEN
            problems := problems || format('Row-level security is disabled on %s', found.relation);
            statements := statements || format('ALTER TABLE %s.%I ENABLE ROW LEVEL SECURITY;', home, found.relation);
        END IF;
        IF found.relforcerowsecurity THEN
            problems := problems || format('Row-level security is forced on the owner of %s', found.relation);
            statements := statements || format('ALTER TABLE %s.%I NO FORCE ROW LEVEL SECURITY;', home, found.relation);
        END IF;
    END LOOP;
    RETURN QUERY SELECT 'row_security', problems = '{}',
        CASE WHEN problems = '{}' THEN 'Row-level security is enabled on every table.'
             ELSE array_to_string(problems, '; ') || '.' END,
        NULLIF(array_to_string(statements, ' '), '');
END
$function$;

-- The extension writes as the owner of user_sessions, which must therefore own the other tables. Those that differ are to
-- get the owner that most of them have or, of two, the one that owns the functions. What it writes names the schema.
CREATE FUNCTION @extschema@._health_owner()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET standard_conforming_strings = on
AS $function$
DECLARE
    home text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'pg_presence');
    installer oid := (SELECT p.proowner FROM pg_proc p WHERE p.oid = to_regprocedure(home || '.presence_health()'));
    wanted regrole;
    owners text;
    problems text[] := '{}';
    statements text[] := '{}';
BEGIN
    EXECUTE format($query$
        WITH member AS (
            SELECT d.relation, c.relowner FROM %1$s._definitions('table') d JOIN pg_class c ON c.oid = d.relid
        ), wanted AS (
            SELECT m.relowner FROM member m GROUP BY 1 ORDER BY count(*) DESC, m.relowner = $1 DESC, 1 LIMIT 1
        )
        SELECT w.relowner,
               string_agg(format('%%s (%%s)', m.relation, m.relowner::regrole), ', '),
               array_agg(format('ALTER TABLE %%s.%%I OWNER TO %%s;', $2, m.relation, w.relowner::regrole))
                   FILTER (WHERE m.relowner <> w.relowner)
          FROM member m, wanted w
         GROUP BY 1
    $query$, home) INTO wanted, owners, statements USING installer, home;
    IF statements IS NOT NULL THEN
        problems := problems || format('The tables have different owners: %s', owners);
    END IF;
    IF NOT has_schema_privilege(wanted, to_regnamespace(home), 'USAGE') THEN
        problems := problems || format('The owner of the tables, %s, has no USAGE on schema %s', wanted, home);
        statements := statements || format('GRANT USAGE ON SCHEMA %s TO %s;', home, wanted);
    END IF;
    RETURN QUERY SELECT 'owner', problems = '{}',
        CASE WHEN problems = '{}' THEN 'All tables have the same owner.' ELSE array_to_string(problems, '; ') || '.' END,
        NULLIF(array_to_string(statements, ' '), '');
END
$function$;
