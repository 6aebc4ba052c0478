-- What PostgREST needs; Supabase has these roles already. Run it before CREATE EXTENSION, which grants to them by name:
-- anon may use a token it holds, authenticated acts for itself and sees everybody, service_role acts for anybody.
CREATE ROLE anon NOLOGIN;
CREATE ROLE authenticated NOLOGIN;
CREATE ROLE service_role NOLOGIN BYPASSRLS;
CREATE ROLE authenticator LOGIN NOINHERIT; -- with a password, where connections need one
GRANT anon, authenticated, service_role TO authenticator;

CREATE SCHEMA presence;
CREATE EXTENSION pg_presence SCHEMA presence;

-- The schema must be exposed. In postgrest.conf:  db-schemas = "public, presence"
-- In Supabase: Settings, API, Exposed schemas. For Realtime, publish who is online, not the sessions:
CREATE PUBLICATION supabase_realtime FOR TABLE presence.user_presence;
