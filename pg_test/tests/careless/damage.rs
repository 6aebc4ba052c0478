//! What careless people do to the database: the statements, what they may stop or open, and what names and mends it.

use crate::place::Actor::{self, DatabaseOwner, Owner, Superuser};

/// One thing that somebody does. The statements have the placeholders of [`Place::fill`](crate::place::Place::fill).
#[derive(Clone, Copy, Debug)]
pub struct Damage {
    pub by: Actor,
    pub sql: &'static str,
    /// Undoes it, without health's help.
    pub undo: &'static str,
    /// The checks of health of which at least one fails, separated by spaces; none if there is nothing to mend.
    pub checks: &'static str,
    /// Whether health has no statement that mends it, but says what to do in words, or has nothing to say.
    pub is_undone_by_hand: bool,
    /// Calls may be refused with 55000 and a hint.
    pub refuses: bool,
    /// Changes may not be told until it is mended.
    pub stops: bool,
    /// The owner has opened the rows of others, or let others truncate: rights to rows are not checked.
    pub opens: bool,
}

impl Damage {
    const fn refuses(mut self) -> Damage {
        self.refuses = true;
        self
    }

    const fn stops(mut self) -> Damage {
        self.stops = true;
        self
    }

    const fn opens(mut self) -> Damage {
        self.opens = true;
        self
    }
}

/// Something that nobody else notices, named by these checks and mended by their statements.
const fn named(by: Actor, checks: &'static str, sql: &'static str, undo: &'static str) -> Damage {
    Damage {
        by,
        sql,
        undo,
        checks,
        is_undone_by_hand: false,
        refuses: false,
        stops: false,
        opens: false,
    }
}

/// Something that health has no statements for.
const fn by_hand(by: Actor, checks: &'static str, sql: &'static str, undo: &'static str) -> Damage {
    Damage {
        is_undone_by_hand: true,
        ..named(by, checks, sql, undo)
    }
}

/// Every damage.
#[rustfmt::skip]
pub const DAMAGES: &[Damage] = &[
    // Grants.
    named(Superuser, "grants", "GRANT ALL ON ALL TABLES IN SCHEMA {s} TO {eve}", "REVOKE ALL ON ALL TABLES IN SCHEMA {s} FROM {eve}"),
    named(Superuser, "grants", "GRANT ALL ON ALL TABLES IN SCHEMA {s} TO PUBLIC", "REVOKE ALL ON ALL TABLES IN SCHEMA {s} FROM PUBLIC"),
    named(Superuser, "grants", "GRANT ALL ON ALL ROUTINES IN SCHEMA {s} TO {eve}", "REVOKE ALL ON ALL ROUTINES IN SCHEMA {s} FROM {eve}"),
    named(Superuser, "grants", "GRANT ALL ON ALL ROUTINES IN SCHEMA {s} TO PUBLIC", ""),
    named(Owner, "schema", "GRANT ALL ON SCHEMA {s} TO {eve}, {bob}", "REVOKE CREATE ON SCHEMA {s} FROM {eve}, {bob}"),
    named(Superuser, "schema", "GRANT ALL ON SCHEMA {s} TO PUBLIC", "REVOKE CREATE ON SCHEMA {s} FROM PUBLIC"),
    named(Superuser, "services", "GRANT USAGE ON TYPE {s}._service_marker TO PUBLIC", "REVOKE USAGE ON TYPE {s}._service_marker FROM PUBLIC"),
    named(Superuser, "grants",
        "GRANT TRUNCATE, TRIGGER ON {user_sessions} TO {eve} WITH GRANT OPTION; SET ROLE {eve};
         GRANT TRUNCATE, TRIGGER ON {user_sessions} TO {bob}; RESET ROLE", ""),
    named(Superuser, "grants",
        "GRANT UPDATE, DELETE ON {user_sessions} TO {service2} WITH GRANT OPTION; SET ROLE {service2};
         GRANT UPDATE, DELETE ON {user_sessions} TO {bob}; RESET ROLE", ""),
    named(Owner, "grants", "GRANT UPDATE (seq), INSERT (user_id), REFERENCES (user_id) ON {user_presence} TO {eve}", ""),
    named(Owner, "grants", "GRANT SELECT (epoch) ON {_feed_state} TO {bob}", ""),
    by_hand(Superuser, "", "ALTER DEFAULT PRIVILEGES IN SCHEMA {s} GRANT ALL ON TABLES TO PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {eve}; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA {s} REVOKE ALL ON TABLES FROM PUBLIC;
         ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM {eve}; ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC"),
    by_hand(DatabaseOwner, "", "SELECT {s}.grant_client({eve'}), {s}.grant_reader({bob'}), {s}.grant_holder({reader'})", ""),
    by_hand(DatabaseOwner, "", "SELECT {s}.grant_service({service2'})", ""),

    // Revokes.
    by_hand(Superuser, "", "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {s} FROM PUBLIC", ""),
    by_hand(Superuser, "", "REVOKE ALL ON ALL TABLES IN SCHEMA {s} FROM PUBLIC; REVOKE ALL ON SCHEMA {s} FROM PUBLIC", ""),
    named(Superuser, "locked_out", "REVOKE EXECUTE ON FUNCTION {s}.is_service() FROM {service2}, PUBLIC", ""),
    named(Owner, "locked_out", "REVOKE USAGE ON SCHEMA {s} FROM {client2}, PUBLIC", ""),
    named(Owner, "locked_out", "REVOKE ALL ON {user_sessions} FROM {client2}, {service2}", ""),
    named(Superuser, "locked_out",
        "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {s} FROM {client2}, PUBLIC; GRANT EXECUTE ON FUNCTION {s}.start_session TO {client2}", ""),

    // Columns.
    named(Owner, "columns", "ALTER TABLE {user_sessions} RENAME auth_id TO \"authId\"", "").refuses(),
    named(Owner, "columns", "ALTER TABLE {user_sessions} RENAME session_token TO token", "").refuses(),
    named(Superuser, "columns", "ALTER TABLE {user_sessions} RENAME user_id TO \"userId\"", "").refuses(),
    named(Owner, "columns", "ALTER TABLE {user_sessions} RENAME last_activity TO \"lastActivity\"", "").refuses(),
    named(Owner, "columns", "ALTER TABLE {user_presence} RENAME seq TO n", "").stops(),
    named(Owner, "columns", "ALTER TABLE {presence_changes} RENAME reason TO why", "").stops().refuses(),
    named(Owner, "columns", "ALTER TABLE {_feed_state} RENAME seq TO number", "").stops(),
    named(Owner, "columns", "ALTER TABLE {user_sessions} ALTER session_token TYPE varchar(100)", "").refuses(),
    named(Owner, "columns", "ALTER TABLE {user_sessions} ALTER last_activity TYPE timestamp", "").refuses(),
    named(Owner, "columns", "ALTER TABLE {user_sessions} DROP CONSTRAINT user_sessions_metadata_check, ALTER metadata DROP DEFAULT, ALTER metadata TYPE text", "").refuses(),
    named(Owner, "columns", "ALTER TABLE {user_presence} ALTER status TYPE text", "").stops(),
    named(Owner, "columns", "ALTER TABLE {presence_changes} ALTER seq TYPE int", "").stops().refuses(),
    named(Owner, "columns", "ALTER TABLE {user_sessions} DROP user_key", "").refuses(),
    named(Owner, "columns", "ALTER TABLE {user_sessions} DROP is_active", "").refuses(),
    named(Owner, "columns indexes", "ALTER TABLE {user_sessions} DROP session_token", "").refuses(),
    named(Owner, "columns", "ALTER TABLE {user_presence} DROP is_online", "").stops(),
    named(Owner, "columns",
        "DROP POLICY own_or_service_select ON {user_sessions}; DROP POLICY own_or_service_insert ON {user_sessions};
         DROP POLICY own_or_service_update ON {user_sessions}; DROP POLICY own_or_service_delete ON {user_sessions};
         ALTER TABLE {user_sessions} ALTER auth_id DROP DEFAULT, ALTER auth_id TYPE bigint USING 1", "").refuses().stops(),
    by_hand(Owner, "", "ALTER TABLE {user_sessions} ADD tenant_{n} int DEFAULT 1", "ALTER TABLE {user_sessions} DROP tenant_{n}"),
    named(Owner, "not_null", "ALTER TABLE {user_sessions} ALTER user_id DROP NOT NULL, ALTER metadata DROP NOT NULL", ""),
    named(Owner, "not_null", "LOCK TABLE {presence_changes}; DELETE FROM {presence_changes};
         ALTER TABLE {presence_changes} ADD tenant int NOT NULL", "").stops(),
    named(Owner, "defaults", "ALTER TABLE {user_sessions} ALTER auth_id DROP DEFAULT, ALTER expires_at SET DEFAULT now()", ""),
    named(Superuser, "defaults", "ALTER TABLE {user_sessions} ALTER ended_at SET DEFAULT now()", ""),

    // Constraints and indexes.
    named(Owner, "constraints", "ALTER TABLE {user_sessions} DROP CONSTRAINT user_sessions_metadata_check", ""),
    named(Owner, "constraints", "ALTER TABLE {user_sessions} DROP CONSTRAINT user_sessions_pkey", "").refuses(),
    named(Owner, "constraints", "ALTER TABLE {user_presence} DROP CONSTRAINT user_presence_pkey", "").stops(),
    named(Owner, "constraints", "ALTER TABLE {user_sessions} RENAME CONSTRAINT user_sessions_pkey TO \"PK_1\"", ""),
    named(Owner, "constraints", "ALTER TABLE {user_sessions} DROP CONSTRAINT user_sessions_session_token_check;
         ALTER TABLE {user_sessions} ADD CONSTRAINT user_sessions_session_token_check CHECK (session_token <> '') NOT VALID", ""),
    by_hand(Owner, "unwritable",
        "SELECT {s}.start_session(user_key => 'bad {n}', metadata => '{\"bad_{n}\": true}');
         ALTER TABLE {user_sessions} ADD CONSTRAINT no_bad_{n} CHECK (NOT metadata ? 'bad_{n}') NOT VALID; COMMIT;
         SELECT {s}.heartbeat_many(ARRAY(SELECT id FROM {user_sessions} WHERE metadata ? 'bad_{n}'))",
        "ALTER TABLE {user_sessions} DROP CONSTRAINT no_bad_{n}"),
    named(Owner, "indexes", "DROP INDEX {s}.user_sessions_session_token_key", "").refuses(),
    named(Owner, "indexes", "DROP INDEX {s}.user_sessions_session_token_idx, {s}.user_sessions_auth_id_idx", ""),
    named(Owner, "indexes", "DROP INDEX {s}.user_sessions_user_id_idx, {s}.user_presence_user_key_idx", ""),
    named(Owner, "indexes", "ALTER INDEX {s}.user_sessions_auth_id_idx RENAME TO \"IDX_{n}\"", ""),
    by_hand(Owner, "", "CREATE INDEX mine_{n} ON {user_sessions} (is_active, last_activity)", "DROP INDEX {s}.mine_{n}"),

    // Policies.
    named(Owner, "policies", "DROP POLICY own_or_service_update ON {user_sessions}", ""),
    named(Owner, "policies", "DROP POLICY own_or_service_select ON {user_sessions}; DROP POLICY readers_select ON {user_presence}", ""),
    named(Owner, "policies", "CREATE POLICY everything ON {user_sessions} USING (true)", "DROP POLICY everything ON {user_sessions}").opens(),
    named(Owner, "policies", "ALTER POLICY own_or_service_select ON {user_sessions} USING (true)", "").opens(),
    named(Owner, "policies", "ALTER POLICY own_or_service_select ON {user_sessions} TO {client2}", ""),
    by_hand(Owner, "", "CREATE POLICY fewer_{n} ON {user_sessions} AS RESTRICTIVE USING (user_key IS NULL)",
        "DROP POLICY fewer_{n} ON {user_sessions}"),
    named(Owner, "row_security", "ALTER TABLE {user_sessions} DISABLE ROW LEVEL SECURITY", "").opens(),
    named(Superuser, "row_security", "ALTER TABLE {presence_changes} DISABLE ROW LEVEL SECURITY", "").opens(),
    named(Owner, "row_security", "ALTER TABLE {user_presence} FORCE ROW LEVEL SECURITY", "").stops(),
    named(Owner, "row_security", "ALTER TABLE {user_sessions} FORCE ROW LEVEL SECURITY", "").refuses().stops(),

    // Triggers.
    named(Owner, "triggers", "ALTER TABLE {user_sessions} DISABLE TRIGGER presence_capture", "").refuses().stops(),
    named(Owner, "triggers", "ALTER TABLE {user_sessions} DISABLE TRIGGER ALL", "").refuses().stops().opens(),
    named(Owner, "triggers", "ALTER TABLE {user_sessions} DISABLE TRIGGER ALL; ALTER TABLE {user_sessions} ENABLE TRIGGER ALL", ""),
    named(Owner, "triggers", "DROP TRIGGER presence_before_write ON {user_sessions}", "").refuses().opens(),
    named(Owner, "triggers", "DROP TRIGGER presence_before_truncate ON {user_presence}", "").opens(),
    named(Owner, "triggers", "DROP TRIGGER presence_restore ON {user_presence}", ""),
    named(Owner, "triggers", "ALTER TABLE {user_presence} DISABLE TRIGGER presence_compare", ""),
    named(Owner, "triggers", "ALTER TRIGGER presence_capture ON {user_sessions} RENAME TO last", ""),
    named(Superuser, "triggers",
        "DROP TRIGGER presence_capture ON {user_sessions}; CREATE TRIGGER presence_capture AFTER INSERT OR UPDATE ON {user_sessions}
         FOR EACH STATEMENT EXECUTE FUNCTION {s}._capture()", "").refuses().stops(),
    named(Superuser, "triggers", "CREATE TRIGGER again_{n} BEFORE INSERT ON {user_sessions} FOR EACH STATEMENT EXECUTE FUNCTION {s}._capture()",
        "DROP TRIGGER again_{n} ON {user_sessions}").refuses(),
    named(Owner, "other_triggers", "ALTER TRIGGER presence_capture ON {user_sessions} NO DEPENDS ON EXTENSION pg_presence", "").stops().refuses(),
    by_hand(Owner, "",
        "CREATE SCHEMA audit_{n}; GRANT USAGE ON SCHEMA audit_{n} TO PUBLIC; CREATE TABLE audit_{n}.log (at timestamptz DEFAULT now(), what text);
         CREATE FUNCTION audit_{n}.log() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN INSERT INTO audit_{n}.log (what) VALUES (TG_OP); RETURN NULL; END $$;
         CREATE TRIGGER log_{n} AFTER INSERT OR UPDATE ON {user_sessions} FOR EACH ROW EXECUTE FUNCTION audit_{n}.log();
         CREATE TRIGGER log_{n} AFTER INSERT ON {user_presence} FOR EACH STATEMENT EXECUTE FUNCTION audit_{n}.log()",
        "DROP TRIGGER log_{n} ON {user_sessions}; DROP TRIGGER log_{n} ON {user_presence}; DROP SCHEMA audit_{n} CASCADE"),
    by_hand(Owner, "unwritable",
        "CREATE SCHEMA hurdle_{n}; CREATE FUNCTION hurdle_{n}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
         CREATE TRIGGER refuse_{n} BEFORE INSERT OR UPDATE ON {user_presence} FOR EACH ROW WHEN (NEW.user_key = 'refused {n}')
         EXECUTE FUNCTION hurdle_{n}.refuse(); SELECT {s}.start_session(user_key => 'refused {n}')",
        "DROP TRIGGER refuse_{n} ON {user_presence}; DROP SCHEMA hurdle_{n} CASCADE"),
    by_hand(Owner, "unwritable",
        "CREATE SCHEMA slow_{n}; CREATE FUNCTION slow_{n}.wait() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(3600); RETURN NEW; END $$;
         CREATE TRIGGER slow_{n} BEFORE INSERT OR UPDATE ON {user_presence} FOR EACH ROW WHEN (NEW.user_key = 'slow {n}')
         EXECUTE FUNCTION slow_{n}.wait(); SELECT {s}.start_session(user_key => 'slow {n}')",
        "DROP TRIGGER slow_{n} ON {user_presence}; DROP SCHEMA slow_{n} CASCADE"),
    named(Superuser, "other_triggers",
        "CREATE SCHEMA given_{n}; CREATE FUNCTION given_{n}.trap() RETURNS trigger LANGUAGE plpgsql AS
             $$ {trap} $$;
         CREATE TRIGGER given_{n} BEFORE INSERT OR UPDATE ON {user_sessions} FOR EACH ROW EXECUTE FUNCTION given_{n}.trap();
         CREATE TRIGGER given_{n} BEFORE INSERT OR UPDATE ON {user_presence} FOR EACH ROW EXECUTE FUNCTION given_{n}.trap();
         ALTER FUNCTION given_{n}.trap() OWNER TO {eve}", ""),

    // Foreign keys.
    by_hand(Owner, "",
        "CREATE SCHEMA device_{n}; CREATE TABLE device_{n}.device (session_id uuid REFERENCES {user_sessions} (id) ON DELETE CASCADE)",
        "DROP SCHEMA device_{n} CASCADE"),
    by_hand(Superuser, "",
        "CREATE SCHEMA login_{n}; CREATE TABLE login_{n}.login (session_id uuid REFERENCES {user_sessions} (id));
         INSERT INTO login_{n}.login SELECT session_id FROM {s}.start_session(user_key => 'audited {n}');
         SELECT {s}.end_session(session_id) FROM login_{n}.login",
        "DROP SCHEMA login_{n} CASCADE"),
    named(Superuser, "other_triggers",
        "CREATE TABLE eve.theirs_{n} (session_id uuid REFERENCES {user_sessions} (id) ON DELETE CASCADE);
         CREATE TRIGGER trap AFTER DELETE ON eve.theirs_{n} FOR EACH ROW EXECUTE FUNCTION eve.trap();
         ALTER TABLE eve.theirs_{n} OWNER TO {eve};
         INSERT INTO eve.theirs_{n} SELECT session_id FROM {s}.start_session(user_key => 'theirs {n}');
         SELECT {s}.end_session(session_id) FROM eve.theirs_{n}", ""),

    // Publications.
    by_hand(Superuser, "", "CREATE PUBLICATION all_{n} FOR ALL TABLES", "DROP PUBLICATION all_{n}"),
    by_hand(Superuser, "unwritable", "CREATE PUBLICATION online_{n} FOR TABLE {user_presence} WHERE (is_online)", "DROP PUBLICATION online_{n}").stops(),
    by_hand(Owner, "unwritable", "CREATE PUBLICATION part_{n} FOR TABLE {user_presence} (status)", "DROP PUBLICATION part_{n}").stops(),
    by_hand(Superuser, "unwritable", "CREATE PUBLICATION live_{n} FOR TABLE {user_sessions} WHERE (is_active)", "DROP PUBLICATION live_{n}").refuses().stops(),
    by_hand(Superuser, "", "CREATE PUBLICATION inserts_{n} FOR TABLE {presence_changes} WHERE (reason = 'started') WITH (publish = 'insert')",
        "DROP PUBLICATION inserts_{n}"),

    // Tables.
    named(Owner, "tables", "ALTER TABLE {user_sessions} RENAME TO sessions", "").refuses(),
    named(Owner, "tables", "ALTER TABLE {user_presence} RENAME TO \"Presence\"", "").stops(),
    named(Owner, "tables", "ALTER TABLE {_feed_state} RENAME TO state; ALTER TABLE {presence_changes} RENAME TO changes", "").stops().refuses(),
    named(Superuser, "tables", "ALTER TABLE {user_sessions} SET SCHEMA public", "").refuses(),
    named(Superuser, "tables", "ALTER TABLE {user_presence} SET SCHEMA eve", "").stops(),
    named(Owner, "tables", "ALTER TABLE {user_sessions} SET UNLOGGED", ""),
    named(Owner, "tables", "ALTER TABLE {_feed_state} REPLICA IDENTITY NOTHING", ""),
    named(Owner, "tables", "CREATE RULE nothing AS ON DELETE TO {user_presence} DO INSTEAD NOTHING", "DROP RULE nothing ON {user_presence}"),
    named(Owner, "tables", "CREATE RULE quiet AS ON UPDATE TO {user_sessions} DO INSTEAD NOTHING", "").refuses().stops(),
    named(Superuser, "owner", "ALTER TABLE {user_presence} OWNER TO {owner2}; ALTER TABLE {_feed_state} OWNER TO {owner2}", "").stops(),
    named(Superuser, "owner", "ALTER TABLE {user_sessions} OWNER TO {owner2}", "").refuses().stops(),
    named(Superuser, "schema_owner", "ALTER SCHEMA {s} OWNER TO {bob}", "").opens(),

    // Settings of the database.
    by_hand(DatabaseOwner, "", "ALTER DATABASE {db} SET search_path = eve, public; ALTER DATABASE {db} SET statement_timeout = '10s'",
        "ALTER DATABASE {db} RESET ALL"),
    by_hand(DatabaseOwner, "", "ALTER DATABASE {db} SET row_security = off; ALTER DATABASE {db} SET default_table_access_method = 'heap'",
        "ALTER DATABASE {db} RESET ALL"),
    by_hand(DatabaseOwner, "", "ALTER DATABASE {db} SET lock_timeout = '3s'; ALTER DATABASE {db} SET idle_in_transaction_session_timeout = '20s';
         ALTER DATABASE {db} SET client_min_messages = 'error'; ALTER DATABASE {db} SET DateStyle = 'German'",
        "ALTER DATABASE {db} RESET ALL"),

    // Roles that come and go, and what they own.
    by_hand(Superuser, "",
        "CREATE ROLE \"Temp {n} of {w}\"; SELECT {s}.grant_service('\"Temp {n} of {w}\"'), {s}.grant_client('\"Temp {n} of {w}\"');
         GRANT \"Temp {n} of {w}\" TO {service2}; SET ROLE \"Temp {n} of {w}\"; SELECT {s}.is_service(); RESET ROLE",
        "DROP OWNED BY \"Temp {n} of {w}\"; DROP ROLE \"Temp {n} of {w}\""),
    by_hand(Superuser, "", "CREATE ROLE gone_{n}_{w}; SELECT {s}.grant_reader('gone_{n}_{w}'); DROP OWNED BY gone_{n}_{w}; DROP ROLE gone_{n}_{w}", ""),

    // Restores.
    by_hand(Superuser, "",
        "CREATE TEMP TABLE saved AS TABLE {user_sessions}; TRUNCATE {user_sessions}; INSERT INTO {user_sessions} SELECT * FROM saved; DROP TABLE saved", ""),
    by_hand(Superuser, "", "TRUNCATE {user_sessions}, {user_presence}, {presence_changes}", ""),
    by_hand(Owner, "", "TRUNCATE {user_presence}", ""),
    by_hand(Owner, "", "UPDATE {user_presence} SET is_online = NOT is_online", ""),
    by_hand(Owner, "", "DELETE FROM {presence_changes} WHERE seq % 3 = 0", ""),
    by_hand(Superuser, "", "UPDATE {_feed_state} SET seq = 0", ""),
    by_hand(Superuser, "", "DELETE FROM {_feed_state}", ""),
    by_hand(DatabaseOwner, "", "SELECT {s}.renew_epoch()", ""),
];
