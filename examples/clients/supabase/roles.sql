-- The roles PostgREST needs; Supabase has them already. They must exist before CREATE EXTENSION, which grants to them
-- by name: anon may use a session token it holds, authenticated acts for itself and reads everybody's status,
-- service_role acts for anybody.
CREATE ROLE anon NOLOGIN;
CREATE ROLE authenticated NOLOGIN;
CREATE ROLE service_role NOLOGIN BYPASSRLS;
CREATE ROLE authenticator LOGIN NOINHERIT; -- add a password if your connections need one
GRANT anon, authenticated, service_role TO authenticator;

CREATE SCHEMA presence;
CREATE EXTENSION pg_presence SCHEMA presence;

-- Expose the schema. In postgrest.conf:  db-schemas = "public, presence"
-- In Supabase: Settings, API, Exposed schemas. For Realtime, publish the users' status, not their sessions:
CREATE PUBLICATION supabase_realtime FOR TABLE presence.user_presence;
