//! What must be refused, whatever careless people have granted.

use crate::place::Actor::{self, Client, DatabaseOwner, Eve, Holder, Reader, Service};

/// Everybody but the owner.
const OTHERS: &[Actor] = &[Eve, Client, Service, Reader, Holder];
/// Everybody who is no service.
const PLAIN: &[Actor] = &[Eve, Client, Reader, Holder];
/// Others, and the owner of the database, who may own nothing else.
const NO_OWNERS: &[Actor] = &[Eve, Client, Service, Reader, Holder, DatabaseOwner];

/// Statements that each of these roles must be refused, with the placeholders of
/// [`Place::fill`](crate::place::Place::fill).
#[rustfmt::skip]
pub const ATTEMPTS: &[(&[Actor], &str)] = &[
    (OTHERS, "CREATE TRIGGER a BEFORE INSERT OR UPDATE ON {user_presence} FOR EACH ROW EXECUTE FUNCTION eve.trap()"),
    (OTHERS, "CREATE TRIGGER a AFTER DELETE ON {user_sessions} FOR EACH STATEMENT EXECUTE FUNCTION eve.trap()"),
    (OTHERS, "CREATE CONSTRAINT TRIGGER a AFTER INSERT ON {presence_changes} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
              EXECUTE FUNCTION eve.trap()"),
    (OTHERS, "CREATE TRIGGER a BEFORE UPDATE ON {_feed_state} FOR EACH ROW WHEN (eve.is_trap(NEW.seq))
              EXECUTE FUNCTION suppress_redundant_updates_trigger()"),
    (OTHERS, "CREATE OR REPLACE TRIGGER presence_capture AFTER INSERT ON {user_sessions} FOR EACH ROW EXECUTE FUNCTION eve.trap()"),
    (&[Actor::Superuser, Actor::Owner], "CREATE TRIGGER a AFTER INSERT ON {user_sessions} FOR EACH ROW EXECUTE FUNCTION eve.trap()"),
    (&[Actor::Superuser, Actor::Owner], "CREATE TRIGGER a BEFORE UPDATE ON {user_sessions} FOR EACH ROW WHEN (eve.is_trap(NEW.id))
              EXECUTE FUNCTION suppress_redundant_updates_trigger()"),
    (&[Eve], "CREATE TABLE eve.a (id uuid REFERENCES {user_sessions} ON DELETE CASCADE)"),
    (&[Eve], "CREATE TABLE eve.a (id uuid); ALTER TABLE eve.a ADD FOREIGN KEY (id) REFERENCES {user_presence} NOT VALID"),
    (OTHERS, "CREATE TEMP TABLE a (seq bigint REFERENCES {presence_changes})"),
    (NO_OWNERS, "ALTER TABLE {user_sessions} DISABLE ROW LEVEL SECURITY"),
    (NO_OWNERS, "ALTER TABLE {user_sessions} DISABLE TRIGGER presence_capture"),
    (NO_OWNERS, "ALTER TABLE {user_sessions} ALTER auth_id TYPE text"),
    (NO_OWNERS, "ALTER TABLE {user_presence} ADD CHECK (is_online)"),
    (NO_OWNERS, "ALTER TABLE {user_sessions} OWNER TO {eve}"),
    (NO_OWNERS, "ALTER TABLE {_feed_state} RENAME TO mine"),
    (OTHERS, "DROP TABLE {user_sessions} CASCADE"),
    (OTHERS, "DROP INDEX {s}.user_sessions_user_id_idx"),
    (NO_OWNERS, "CREATE INDEX a ON {user_sessions} (user_id)"),
    (NO_OWNERS, "CREATE POLICY a ON {user_sessions} USING (true)"),
    (NO_OWNERS, "ALTER POLICY own_or_service_select ON {user_sessions} USING (true)"),
    (NO_OWNERS, "DROP POLICY own_or_service_select ON {user_sessions}"),
    (NO_OWNERS, "CREATE RULE a AS ON UPDATE TO {user_sessions} DO INSTEAD NOTHING"),
    (NO_OWNERS, "DROP TRIGGER presence_capture ON {user_sessions}"),
    (NO_OWNERS, "ALTER TRIGGER presence_capture ON {user_sessions} NO DEPENDS ON EXTENSION pg_presence"),
    (NO_OWNERS, "CREATE PUBLICATION a FOR TABLE {user_presence} WHERE (is_online)"),
    (NO_OWNERS, "DROP EXTENSION pg_presence CASCADE"),
    (NO_OWNERS, "ALTER EXTENSION pg_presence UPDATE TO 'x'"),
    (OTHERS, "DROP FUNCTION {s}.is_service() CASCADE"),
    (NO_OWNERS, "CREATE OR REPLACE FUNCTION {s}.is_service() RETURNS bool LANGUAGE sql AS 'SELECT true'"),
    (NO_OWNERS, "ALTER FUNCTION {s}.is_service() OWNER TO {eve}"),
    (NO_OWNERS, "ALTER FUNCTION {s}.forget_user(uuid) SECURITY DEFINER"),
    (NO_OWNERS, "ALTER TYPE {s}.presence_status ADD VALUE 'gone'"),
    (OTHERS, "ALTER SCHEMA {s} RENAME TO mine"),
    (OTHERS, "ALTER DATABASE {db} RENAME TO mine"),
    (OTHERS, "ALTER DATABASE {db} SET presence.claim = 'email'"),
    (OTHERS, "SELECT {s}.grant_service({eve'})"),
    (OTHERS, "SELECT {s}.grant_client({eve'})"),
    (OTHERS, "SELECT {s}._grant_service({eve'})"),
    (OTHERS, "SELECT {s}.renew_epoch()"),
    (PLAIN, "SELECT {s}.cleanup_sessions()"),
    (PLAIN, "SELECT * FROM {s}.presence_stats"),
    (PLAIN, "SELECT {s}.presence_health()"),
    (PLAIN, "SELECT {s}._stats()"),
    (PLAIN, "TRUNCATE {user_sessions}, {_feed_state} CASCADE"),
    (PLAIN, "INSERT INTO {user_presence} (user_id) VALUES (gen_random_uuid())"),
    (PLAIN, "INSERT INTO {_feed_state} (epoch) VALUES ('mine')"),
    (PLAIN, "INSERT INTO {user_sessions} (user_id) VALUES (gen_random_uuid())"),
    (PLAIN, "SET ROLE {owner}"),
    (PLAIN, "SET SESSION AUTHORIZATION postgres"),
    (PLAIN, "SET session_replication_role = replica"),
];
