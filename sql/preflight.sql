-- Refuses what could not work or would not be safe, before anything is created.
--
-- Everything here is written out with its schema: the search path of CREATE EXTENSION starts with the target schema.

DO LANGUAGE plpgsql $preflight$
DECLARE
    target pg_catalog.regnamespace;
    target_owner pg_catalog.oid;
    database_owner pg_catalog.oid;
    intruders pg_catalog.text;
BEGIN
    -- The library defines its settings only where the server loads it at start. One that is merely in the configuration
    -- file has a value, but is not listed.
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_settings s WHERE s.name OPERATOR(pg_catalog.=) 'presence.max_sessions'
    ) THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = 'pg_presence must be loaded when the server starts',
            DETAIL = 'It keeps who is online in shared memory, which is only given out at server start.',
            HINT = 'Add pg_presence to shared_preload_libraries in postgresql.conf and restart the server.';
    END IF;

    SELECT n.oid, n.nspowner, d.datdba
      INTO target, target_owner, database_owner
      FROM pg_catalog.pg_extension e
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
      JOIN pg_catalog.pg_database d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
     WHERE e.extname OPERATOR(pg_catalog.=) 'pg_presence';

    -- Who may CREATE here could plant a function or operator that ours would take for PostgreSQL's.
    SELECT pg_catalog.string_agg(
               CASE
                   WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                   ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee))
               END,
               ', ')
      INTO intruders
      FROM pg_catalog.pg_namespace n,
           LATERAL pg_catalog.aclexplode(n.nspacl) a
      LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) a.grantee
     WHERE n.oid OPERATOR(pg_catalog.=) target
       AND a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
       AND a.grantee OPERATOR(pg_catalog.<>) target_owner
       AND a.grantee OPERATOR(pg_catalog.<>) database_owner
       AND (r.rolname IS NULL OR r.rolname OPERATOR(pg_catalog.<>) 'pg_database_owner')
       AND r.rolsuper IS NOT TRUE;

    IF intruders IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = pg_catalog.format('schema %s is not safe to install into', target),
            DETAIL = pg_catalog.format('These may create objects in it, and so put theirs in the place of others: %s.', intruders),
            HINT = pg_catalog.format(
                'Use a schema of its own: CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence; '
                'or take the right away first: REVOKE CREATE ON SCHEMA %s FROM %s;', target, intruders);
    END IF;
END
$preflight$;
