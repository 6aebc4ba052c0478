-- Refuses an install that would not work or would not be safe, before anything is created.
--
-- Every name is schema-qualified, as the search path of CREATE EXTENSION starts with the target schema.

-- A function, as the context of an error has the whole text of a DO block.
CREATE FUNCTION @extschema@._preflight() RETURNS pg_catalog.void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $preflight$
DECLARE
    target pg_catalog.regnamespace;
    target_owner pg_catalog.oid;
    database_owner pg_catalog.oid;
    creators pg_catalog.text;
BEGIN
    -- Only a preloaded library defines its settings. A setting that is only in the configuration file has a value, but is not
    -- in pg_settings.
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_settings s WHERE s.name OPERATOR(pg_catalog.=) 'presence.max_sessions'
    ) THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = 'pg_presence must be loaded via shared_preload_libraries',
            DETAIL = 'Its shared memory can be allocated only while the server starts.',
            HINT = 'Add pg_presence to shared_preload_libraries in postgresql.conf and restart the server.';
    END IF;

    SELECT n.oid, n.nspowner, d.datdba
      INTO target, target_owner, database_owner
      FROM pg_catalog.pg_extension e
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
      JOIN pg_catalog.pg_database d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
     WHERE e.extname OPERATOR(pg_catalog.=) 'pg_presence';

    -- Its owner could replace everything in the schema.
    IF target_owner OPERATOR(pg_catalog.<>) database_owner
       AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_roles r
            WHERE r.oid OPERATOR(pg_catalog.=) target_owner
              AND (r.rolsuper
                   OR r.rolname OPERATOR(pg_catalog.=) 'pg_database_owner'
                   OR r.rolname OPERATOR(pg_catalog.=) CURRENT_USER)
       )
    THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = pg_catalog.format('schema %s is not safe to install into', target),
            DETAIL = pg_catalog.format(
                'Its owner, role %I, could replace the extension''s functions.', pg_catalog.pg_get_userbyid(target_owner)),
            HINT = pg_catalog.format(
                'Use a separate schema: CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence; '
                'or change the owner first: ALTER SCHEMA %s OWNER TO %I;', target,
                pg_catalog.pg_get_userbyid(database_owner));
    END IF;

    -- A role with the CREATE privilege could create functions and operators that shadow those that ours call.
    SELECT pg_catalog.string_agg(
               CASE
                   WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                   ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee))
               END,
               ', ')
      INTO creators
      FROM pg_catalog.pg_namespace n,
           LATERAL pg_catalog.aclexplode(n.nspacl) a
      LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) a.grantee
     WHERE n.oid OPERATOR(pg_catalog.=) target
       AND a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
       AND a.grantee OPERATOR(pg_catalog.<>) target_owner
       AND a.grantee OPERATOR(pg_catalog.<>) database_owner
       AND (r.rolname IS NULL OR r.rolname OPERATOR(pg_catalog.<>) 'pg_database_owner')
       AND r.rolsuper IS NOT TRUE;

    IF creators IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = pg_catalog.format('schema %s is not safe to install into', target),
            DETAIL = pg_catalog.format(
                'Roles that can create objects here could shadow the extension''s functions: %s.', creators),
            HINT = pg_catalog.format(
                'Use a separate schema: CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence; '
                'or revoke the privilege first: REVOKE CREATE ON SCHEMA %s FROM %s;', target, creators);
    END IF;

    -- An application's own table of sessions: its statements would not do to the extension's table what they did to it.
    IF pg_catalog.to_regclass(pg_catalog.format('%s.user_sessions', target)) IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '42P07',
            MESSAGE = pg_catalog.format('relation %s.user_sessions already exists', target),
            DETAIL = 'The extension creates a table of this name.',
            HINT = pg_catalog.format(
                'To replace the table: CREATE SCHEMA old; ALTER TABLE %s.user_sessions SET SCHEMA old; and then as described '
                'in docs/migration.md. To keep it: CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence;',
                target);
    END IF;
    -- A warning, as PostgreSQL shows no notices of an extension's script.
    IF pg_catalog.to_regclass('public.user_sessions') IS NOT NULL THEN
        RAISE WARNING USING
            MESSAGE = 'relation public.user_sessions does not belong to the extension',
            DETAIL = pg_catalog.format(
                'The extension''s own is %s.user_sessions. Which of them a statement without a schema means depends on '
                'search_path.', target),
            HINT = 'To replace the former by the latter, see docs/migration.md.';
    END IF;
END
$preflight$;

SELECT @extschema@._preflight();
DROP FUNCTION @extschema@._preflight();
