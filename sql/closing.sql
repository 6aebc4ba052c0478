-- Privileges, as the last step of the install: first all are revoked, then those that are intended are granted.
--
-- By now, default privileges (ALTER DEFAULT PRIVILEGES, as Supabase sets them) have granted TRUNCATE on the new tables and
-- EXECUTE on the new functions to other roles, and PostgreSQL has granted EXECUTE to PUBLIC.

DO LANGUAGE plpgsql $privileges$
DECLARE
    statement pg_catalog.text;
BEGIN
    FOR statement IN
        WITH member AS (
            SELECT d.classid, d.objid
              FROM pg_catalog.pg_depend d
              JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
             WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
               AND d.deptype OPERATOR(pg_catalog.=) 'e'
               AND e.extname OPERATOR(pg_catalog.=) 'pg_presence'
        ), granted AS (
            SELECT pg_catalog.format('TABLE %s', c.oid::pg_catalog.regclass) AS object, a.grantee
              FROM member m
              JOIN pg_catalog.pg_class c
                ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
               AND c.oid OPERATOR(pg_catalog.=) m.objid,
                   LATERAL pg_catalog.aclexplode(c.relacl) a
             WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'v']::pg_catalog."char"[])
               AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
            UNION
            SELECT pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure), a.grantee
              FROM member m
              JOIN pg_catalog.pg_proc p
                ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
               AND p.oid OPERATOR(pg_catalog.=) m.objid,
                   LATERAL pg_catalog.aclexplode(
                       COALESCE(p.proacl, pg_catalog.acldefault('f'::pg_catalog."char", p.proowner))) a
             WHERE a.grantee OPERATOR(pg_catalog.<>) p.proowner
            UNION
            SELECT pg_catalog.format('TYPE %s', t.oid::pg_catalog.regtype), a.grantee
              FROM member m
              JOIN pg_catalog.pg_type t
                ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
               AND t.oid OPERATOR(pg_catalog.=) m.objid,
                   LATERAL pg_catalog.aclexplode(
                       COALESCE(t.typacl, pg_catalog.acldefault('T'::pg_catalog."char", t.typowner))) a
             WHERE t.typname OPERATOR(pg_catalog.=) '_service_marker'
               AND a.grantee OPERATOR(pg_catalog.<>) t.typowner
        )
        SELECT pg_catalog.format('REVOKE ALL ON %s FROM %s', object,
                   CASE WHEN grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                        ELSE grantee::pg_catalog.regrole::pg_catalog.text END)
          FROM granted
    LOOP
        EXECUTE statement;
    END LOOP;
END
$privileges$;

-- PUBLIC: identity functions and pure helpers.
GRANT EXECUTE ON FUNCTION
    @extschema@.is_service(),
    @extschema@.presence_user_id(),
    @extschema@.presence_auth_id(),
    @extschema@.presence_id(pg_catalog.text),
    @extschema@.presence_id(pg_catalog.int8),
    @extschema@.token_digest(pg_catalog.text)
    TO PUBLIC;

-- pg_monitor: health and statistics.
GRANT SELECT ON TABLE @extschema@.presence_stats TO pg_monitor;
DO LANGUAGE plpgsql $monitor$
BEGIN
    PERFORM @extschema@._grant_health('pg_monitor'::pg_catalog.regrole);
END
$monitor$;

-- The owner of the database, whoever that is: a service that may let others in.
DO LANGUAGE plpgsql $database_owner$
BEGIN
    -- Before PostgreSQL 14 there is no such role.
    IF pg_catalog.to_regrole('pg_database_owner') IS NOT NULL THEN
        PERFORM @extschema@.grant_service('pg_database_owner'::pg_catalog.regrole);
        GRANT EXECUTE ON FUNCTION
            @extschema@.grant_holder(pg_catalog.regrole),
            @extschema@.grant_client(pg_catalog.regrole),
            @extschema@.grant_reader(pg_catalog.regrole),
            @extschema@.grant_service(pg_catalog.regrole),
            @extschema@.renew_epoch()
            TO pg_database_owner;
    END IF;
END
$database_owner$;

-- The roles of Supabase, if they exist.
DO LANGUAGE plpgsql $supabase$
BEGIN
    IF pg_catalog.to_regrole('anon') IS NOT NULL THEN
        PERFORM @extschema@.grant_holder('anon'::pg_catalog.regrole);
    END IF;
    IF pg_catalog.to_regrole('authenticated') IS NOT NULL THEN
        PERFORM @extschema@.grant_holder('authenticated'::pg_catalog.regrole);
        PERFORM @extschema@.grant_client('authenticated'::pg_catalog.regrole);
        PERFORM @extschema@.grant_reader('authenticated'::pg_catalog.regrole);
    END IF;
    IF pg_catalog.to_regrole('service_role') IS NOT NULL THEN
        PERFORM @extschema@.grant_service('service_role'::pg_catalog.regrole);
    END IF;
END
$supabase$;
