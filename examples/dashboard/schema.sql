-- The dashboard's tables, functions and roles. Run with psql as a superuser, in a database of its own:
--   psql -v password=… -f schema.sql
\set ON_ERROR_STOP on

-- Roles are shared by all databases of the server, so they may exist already. The extension knows the first two by name
-- and grants to them when it is installed: anon may use session tokens, authenticated is a client and a reader.
SELECT format('CREATE ROLE %I %s', role, options)
  FROM (VALUES ('anon', 'NOLOGIN'), ('authenticated', 'NOLOGIN'), ('dashboard', 'LOGIN NOINHERIT')) AS wanted (role, options)
 WHERE to_regrole(role) IS NULL
\gexec
-- Like PostgREST's authenticator, dashboard switches to one of these roles for one transaction at a time.
GRANT anon, authenticated TO dashboard;
ALTER ROLE dashboard PASSWORD :'password';

CREATE SCHEMA presence;
CREATE EXTENSION pg_presence SCHEMA presence;

CREATE SCHEMA app;
CREATE TABLE app.users (
    id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name  text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    title text NOT NULL DEFAULT '',
    -- Comes and goes by itself in the demo.
    is_simulated boolean NOT NULL DEFAULT false
);

-- Who is signed in. The browser has the cookie, the table only its digest.
CREATE TABLE app.logins (
    digest     bytea PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES app.users ON DELETE CASCADE,
    expires_at timestamptz NOT NULL DEFAULT now() + interval '7 days'
);

-- Returns a new cookie for a user, or null if there is no such user. A real application checks a password first.
CREATE FUNCTION app.log_in(user_id uuid) RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = ''
AS $$
    WITH cookie AS (SELECT replace(gen_random_uuid()::text || gen_random_uuid(), '-', '') AS text),
         login AS (INSERT INTO app.logins (digest, user_id)
                   SELECT sha256(c.text::bytea), u.id FROM cookie c, app.users u WHERE u.id = log_in.user_id RETURNING 1)
    SELECT c.text FROM cookie c, login
$$;

-- Returns the user who is signed in with a cookie, or null.
CREATE FUNCTION app.user_of(cookie text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$ SELECT l.user_id FROM app.logins l WHERE l.digest = sha256(cookie::bytea) AND l.expires_at > now() $$;

-- Deletes the login, or all logins of its user, and those that have expired. Returns the user who was signed in, or null.
CREATE FUNCTION app.log_out(cookie text, everywhere boolean DEFAULT false) RETURNS uuid
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = ''
AS $$
    WITH caller AS (SELECT app.user_of(cookie) AS user_id),
         ended AS (DELETE FROM app.logins l USING caller c
                    WHERE l.digest = sha256(cookie::bytea) OR l.expires_at <= now() OR everywhere AND l.user_id = c.user_id)
    SELECT c.user_id FROM caller c
$$;

-- Closes the streams of logins that have ended: the notification makes the dashboard check the logins of the user again.
CREATE FUNCTION app.notify_logins() RETURNS trigger LANGUAGE plpgsql SET search_path = ''
AS $$ BEGIN PERFORM pg_notify('logins', user_id::text) FROM ended GROUP BY user_id; RETURN NULL; END $$;
CREATE TRIGGER notify_logins AFTER DELETE ON app.logins REFERENCING OLD TABLE AS ended
    FOR EACH STATEMENT EXECUTE FUNCTION app.notify_logins();

-- The page also shows changes of this table: the notification makes the dashboard read it again.
CREATE FUNCTION app.notify_users() RETURNS trigger LANGUAGE plpgsql SET search_path = ''
AS $$ BEGIN PERFORM pg_notify('users', ''); RETURN NULL; END $$;
CREATE TRIGGER notify_users AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON app.users
    FOR EACH STATEMENT EXECUTE FUNCTION app.notify_users();

-- Ends the sessions of a removed user, as a foreign key with ON DELETE CASCADE would. Not forget_user(), which tells no
-- listener: that can follow once the logout has been notified (docs/recipes.md, "Deleted users").
CREATE FUNCTION app.end_sessions() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$ BEGIN PERFORM presence.end_user_sessions(OLD.id); RETURN NULL; END $$;
CREATE TRIGGER end_sessions AFTER DELETE ON app.users FOR EACH ROW EXECUTE FUNCTION app.end_sessions();

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA app FROM public;
GRANT USAGE ON SCHEMA app TO dashboard;
GRANT SELECT ON app.users TO dashboard;
GRANT EXECUTE ON FUNCTION app.log_in, app.user_of, app.log_out TO dashboard;
SELECT presence.grant_reader('dashboard');

INSERT INTO app.users (id, name, title) VALUES
    ('00000000-0000-4000-8000-000000000001', 'Amara Okafor',    'Head of support'),
    ('00000000-0000-4000-8000-000000000002', 'Ben Lindqvist',   'Engineer'),
    ('00000000-0000-4000-8000-000000000003', 'Cleo Marchetti',  'Designer'),
    ('00000000-0000-4000-8000-000000000004', 'Dmitri Volkov',   'Engineer'),
    ('00000000-0000-4000-8000-000000000005', 'Elif Yıldız',     'Product manager'),
    ('00000000-0000-4000-8000-000000000006', 'Farid Haddad',    'Sales'),
    ('00000000-0000-4000-8000-000000000007', 'Grace Nakamura',  'Engineer'),
    ('00000000-0000-4000-8000-000000000008', 'Hugo Ferreira',   'Support'),
    ('00000000-0000-4000-8000-000000000009', 'Ingrid Solberg',  'Finance'),
    ('00000000-0000-4000-8000-000000000010', 'Jonas Weber',     'Support'),
    ('00000000-0000-4000-8000-000000000011', 'Kavya Raman',     'Data analyst'),
    ('00000000-0000-4000-8000-000000000012', 'Liam O’Sullivan', 'Operations');
-- The first three are left to real people.
UPDATE app.users SET is_simulated = id > '00000000-0000-4000-8000-000000000003';
