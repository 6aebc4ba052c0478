//! Triggers of others on `user_sessions`: what they write counts as it stands at commit, in whatever order triggers fire
//! and whoever's write set them off.

use pg_presence_test::{Cluster, Database, Presence, wait_until};
use uuid::Uuid;

/// Creates a trigger on `user_sessions`, whose name sorts before ours, that runs `body`, in PL/pgSQL.
fn create_trigger(database: &Database, events: &str, body: &str) {
    database.run(&format!(
        "CREATE FUNCTION public.aaa() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
         CREATE TRIGGER aaa {events} ON presence.user_sessions FOR EACH ROW EXECUTE FUNCTION public.aaa()"
    ));
}

fn start_with(client: &mut postgres::Client, user: Uuid, metadata: &str) -> Uuid {
    let sql = "SELECT session_id FROM presence.start_session($1, metadata => $2::text::jsonb)";
    client.query_one(sql, &[&user, &metadata]).unwrap().get(0)
}

#[test]
fn an_end_by_a_trigger_that_fires_before_ours_counts() {
    let database = Cluster::shared().database();
    create_trigger(
        &database,
        "AFTER INSERT OR UPDATE",
        "IF NEW.metadata ? 'end' AND NEW.ended_at IS NULL THEN
             UPDATE presence.user_sessions SET is_active = false WHERE id = NEW.id;
         END IF;
         RETURN NULL;",
    );
    let mut service = database.connect();
    let (inserted, updated) = (Uuid::new_v4(), Uuid::new_v4());
    let id = start_with(&mut service, inserted, r#"{"end": true}"#);
    assert_eq!(service.beat(id), "ended");
    assert!(!service.is_online(inserted));

    let session = service.start(updated);
    service.update_session("metadata = '{\"end\": true}'", session.id);
    assert_eq!(service.beat(session.id), "ended");
    assert!(!service.is_online(updated));
}

#[test]
fn a_write_that_a_trigger_has_rolled_back_does_not_count() {
    let database = Cluster::shared().database();
    create_trigger(
        &database,
        "AFTER INSERT OR UPDATE",
        "IF NEW.ended_at IS NULL THEN
             BEGIN
                 UPDATE presence.user_sessions SET is_active = false WHERE id = NEW.id;
                 RAISE division_by_zero;
             EXCEPTION WHEN division_by_zero THEN
             END;
         END IF;
         RETURN NULL;",
    );
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    assert!(service.is_online(user));
    service.update_session("metadata = '{\"a\": 1}'", session.id);
    assert!(service.is_online(user));
    assert_eq!(service.beat(session.id), "ok");
}

#[test]
fn rows_that_a_trigger_deletes_or_brings_back_count_as_they_are() {
    let database = Cluster::shared().database();
    create_trigger(
        &database,
        "AFTER UPDATE OR DELETE",
        "IF TG_OP = 'DELETE' AND OLD.metadata ? 'keep' THEN
             INSERT INTO presence.user_sessions SELECT OLD.*;
         ELSIF TG_OP = 'UPDATE' AND NEW.metadata ? 'delete' THEN
             DELETE FROM presence.user_sessions WHERE id = NEW.id;
         END IF;
         RETURN NULL;",
    );
    let mut service = database.connect();
    let (kept, deleted) = (Uuid::new_v4(), Uuid::new_v4());
    let id = start_with(&mut service, kept, r#"{"keep": true}"#);
    service
        .execute("DELETE FROM presence.user_sessions WHERE id = $1", &[&id])
        .unwrap();
    assert!(service.is_online(kept));
    assert_eq!(service.beat(id), "ok");

    let session = service.start(deleted);
    service.update_session("metadata = '{\"delete\": true}'", session.id);
    assert!(!service.is_online(deleted));
    assert_eq!(service.beat(session.id), "unknown");
}

#[test]
fn a_beat_that_a_trigger_has_written_over_still_counts() {
    let database = Cluster::shared().database();
    create_trigger(
        &database,
        "AFTER UPDATE",
        "IF NOT NEW.metadata ? 'seen' THEN
             UPDATE presence.user_sessions SET metadata = '{\"seen\": true}' WHERE id = NEW.id;
         END IF;
         RETURN NULL;",
    );
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    assert!(service.release(session.id, "1 s"));
    wait_until("the release", || !service.is_online(user));
    service.update_session("last_activity = now()", session.id);
    assert!(service.is_online(user));
}

#[test]
fn a_row_that_a_flush_makes_a_trigger_delete_is_gone() {
    let database = Cluster::shared_short_timeout().database();
    create_trigger(
        &database,
        "AFTER UPDATE",
        "IF NEW.metadata ? 'flushed' THEN
             DELETE FROM presence.user_sessions WHERE id = NEW.id;
         END IF;
         RETURN NULL;",
    );
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let id = start_with(&mut service, user, r#"{"flushed": true}"#);
    wait_until("the flush", || {
        service.beat(id);
        let sql = "SELECT FROM presence.user_sessions WHERE id = $1";
        service.query_opt(sql, &[&id]).unwrap().is_none()
    });
    wait_until("the deletion to count", || service.beat(id) == "unknown");
    assert!(!service.is_online(user));
}

#[test]
fn an_end_that_a_trigger_puts_into_a_flush_counts() {
    let database = Cluster::shared_short_timeout().database();
    create_trigger(
        &database,
        "BEFORE UPDATE",
        "IF NEW.metadata ? 'flushed' AND NEW.last_activity > OLD.last_activity THEN
             NEW.is_active = false;
             NEW.ended_at = now();
         END IF;
         RETURN NEW;",
    );
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let id = start_with(&mut service, user, r#"{"flushed": true}"#);
    wait_until("the end", || service.beat(id) == "ended");
    assert!(!service.is_online(user));
}
