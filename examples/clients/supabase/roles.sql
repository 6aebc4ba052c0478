-- The roles PostgREST needs, and then the extension, in a database that has neither:  psql -f roles.sql
--
-- Supabase has the roles already: there, begin at CREATE SCHEMA. The order matters, as CREATE EXTENSION grants to them by
-- name: anon may use a session token it holds, authenticated acts for itself and reads everybody's status, service_role
-- acts for anybody. Where the extension came first:  SELECT presence.grant_holder('anon'), and so on.
CREATE ROLE anon NOLOGIN;
CREATE ROLE authenticated NOLOGIN;
CREATE ROLE service_role NOLOGIN BYPASSRLS;
CREATE ROLE authenticator LOGIN NOINHERIT; -- add a password if your connections need one
GRANT anon, authenticated, service_role TO authenticator;

CREATE SCHEMA presence;
CREATE EXTENSION pg_presence SCHEMA presence;

-- Expose the schema. In postgrest.conf:  db-schemas = "public, presence"
-- In Supabase: Settings, API, Exposed schemas. The first schema is the default; requests for another have the header
-- Content-Profile: presence (supabase-js: db.schema). For Realtime, publish the users' status, not their sessions. Supabase
-- has the publication:  ALTER PUBLICATION supabase_realtime ADD TABLE presence.user_presence
CREATE PUBLICATION supabase_realtime FOR TABLE presence.user_presence;
