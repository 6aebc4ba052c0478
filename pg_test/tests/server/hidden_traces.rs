//! What somebody did while hidden leaves no trace that is seen later, whoever writes the row that hides, and however.

use pg_presence_test::{Presence, Shutdown, wait_until_equal};
use postgres::Client;
use uuid::Uuid;

use crate::{
    declared::{assert_shown, declare, online, shown, wait_for_shown},
    hours::{Server, feed, wait_for_feed},
};

const HIDE: &str = "SELECT presence.set_invisible(true, user_id => $1)";
const SHOW: &str = "SELECT presence.set_invisible(false, user_id => $1)";

fn last_seen(client: &mut Client, user: Uuid) -> Option<String> {
    let sql = "SELECT presence.last_seen($1)::text";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

fn batch(client: &mut Client, sql: &str, user: Uuid) {
    let sql = sql.replace("$1", &format!("'{user}'"));
    client
        .batch_execute(&sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[test]
fn a_session_that_timed_out_while_its_user_was_hidden_starts_when_it_is_heard_of_again() {
    let server = Server::new("3h");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user).id;
    service.wait_for_written(user, true);
    service.execute(HIDE, &[&user]).unwrap();
    server.pass(1);
    assert_eq!(service.beat(session), "ok");
    server.pass(4);
    service.execute(SHOW, &[&user]).unwrap();
    assert_shown(&mut service, user, "inactive");
    let returned = server.hours.get();
    server.pass(2);
    assert_eq!(service.beat_idle(session), "ok");
    assert_shown(&mut service, user, "idle");
    let sql = "SELECT round(extract(epoch FROM clock_timestamp() - idle_since) / 3600)::bigint
               FROM presence.presence_of(ARRAY[$1::uuid])";
    let ago: i64 = service.query_one(sql, &[&user]).unwrap().get(0);
    // SQL's own clock stays behind. Nobody was there that anybody has seen before the return.
    assert_eq!(-ago, returned);
    let expected = "started: inactive, active; ended: active, inactive; started: inactive, idle";
    wait_for_feed(&mut service, user, expected);
}

#[test]
fn a_row_that_is_replaced_in_one_transaction_has_hidden_its_user_throughout() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let insert =
        "INSERT INTO presence.declared_statuses (user_id, source, status) VALUES ($1, 'visibility', 'invisible')";
    for replace in [
        format!("BEGIN; DELETE FROM presence.declared_statuses WHERE user_id = $1; {insert}; COMMIT"),
        "BEGIN; SELECT presence.set_invisible(false, user_id => $1);
         SELECT presence.set_invisible(true, user_id => $1); COMMIT"
            .to_owned(),
    ] {
        let user = Uuid::new_v4();
        let session = service.start(user).id;
        service.wait_for_written(user, true);
        let seen = last_seen(&mut service, user);
        service.execute(HIDE, &[&user]).unwrap();
        assert_shown(&mut service, user, "inactive");
        server.pass(1);
        assert_eq!(service.beat(session), "ok");
        batch(&mut service, &replace, user);
        for _ in 0..2 {
            online(&mut service);
        }
        assert_eq!(last_seen(&mut service, user), seen);
        assert_eq!(
            feed(&mut service, user),
            "started: inactive, active; ended: active, inactive"
        );
    }
}

#[test]
fn a_row_that_is_restored_after_the_sessions_shows_nothing_of_what_it_has_hidden() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    service.execute(HIDE, &[&user]).unwrap();
    server.pass(2);
    service.start(user);
    batch(
        &mut service,
        "CREATE TABLE kept AS SELECT * FROM presence.declared_statuses;
         SET session_replication_role = replica;
         DELETE FROM presence.declared_statuses WHERE user_id = $1;
         SET session_replication_role = origin;
         INSERT INTO presence.declared_statuses SELECT * FROM kept;
         DROP TABLE kept",
        user,
    );
    assert_eq!(shown(&mut service, user), "inactive");
    assert_eq!(last_seen(&mut service, user), None);
}

#[test]
fn a_key_that_a_hidden_user_signs_in_with_is_not_shown() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let sql = "SELECT presence.presence_id('anna'::text)";
    let user: Uuid = service.query_one(sql, &[]).unwrap().get(0);
    service.start(user);
    service.wait_for_written(user, true);
    service.execute(HIDE, &[&user]).unwrap();
    service
        .execute("SELECT presence.start_session(user_key => 'anna')", &[])
        .unwrap();
    declare(&mut service, user, "NULL, 'lunch'");
    assert_shown(&mut service, user, "inactive lunch");
    let sql = "SELECT o.user_key, p.user_key FROM presence.presence_of(ARRAY[$1::uuid]) o
               JOIN presence.user_presence p USING (user_id)";
    let keys = |client: &mut Client| -> [Option<String>; 2] {
        let row = client.query_one(sql, &[&user]).unwrap();
        [row.get(0), row.get(1)]
    };
    assert_eq!(keys(&mut service), [None, None]);
    service.execute(SHOW, &[&user]).unwrap();
    assert_shown(&mut service, user, "active lunch");
    assert_eq!(keys(&mut service), [Some("anna".to_owned()), Some("anna".to_owned())]);
}

#[test]
fn a_hiding_that_is_over_before_it_is_committed_has_ended_in_the_feed_as_it_has_to_readers() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let (mut service, mut other) = (database.connect(), database.connect());
    let user = online(&mut service);
    let mut hiding = other.transaction().unwrap();
    let sql = "SELECT presence.set_invisible(true, '1 h', $1)";
    hiding.execute(sql, &[&user]).unwrap();
    server.pass(2);
    hiding.commit().unwrap();
    assert_shown(&mut service, user, "active");
    assert_eq!(service.online_count(), 1);
    let stats = "SELECT users_online + live_sessions FROM presence.presence_stats";
    assert_eq!(service.query_one(stats, &[]).unwrap().get::<_, i64>(0), 2);
}

#[test]
fn somebody_who_hides_changes_nothing_about_others_over_a_restart() {
    let server = Server::new("3h");
    let database = server.cluster.database();
    let mut service = database.connect();
    let hidden = online(&mut service);
    service.execute(HIDE, &[&hidden]).unwrap();
    // One session of two has timed out.
    let user = online(&mut service);
    server.pass(2);
    service.start(user);
    server.pass(2);
    let active = "SELECT count(*) FROM presence.user_sessions WHERE is_active";
    wait_until_equal("the session that has timed out to be written", &1, || {
        service.query_one(active, &[]).unwrap().get::<_, i64>(0)
    });
    server.cluster.restart(Shutdown::Fast);
    let mut service = database.connect();
    let sql = "SELECT session_count FROM presence.presence_of(ARRAY[$1::uuid])";
    let complete = "SELECT is_complete FROM presence.presence_stats";
    for _ in 0..2 {
        assert_eq!(service.query_one(sql, &[&user]).unwrap().get::<_, i32>(0), 1);
        wait_until_equal("the load", &true, || service.query_one(complete, &[]).unwrap().get(0));
    }
    assert_shown(&mut service, hidden, "inactive");
}

#[test]
fn a_row_of_a_users_own_that_comes_while_users_may_not_hide_hides_nobody() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let (replicated, committed_late) = (online(&mut service), online(&mut service));
    let mut client = database.client_for(committed_late);
    let mut late = client.transaction().unwrap();
    late.execute("SELECT presence.set_invisible(true)", &[]).unwrap();
    server.cluster.set("presence.allow_invisible", "off");
    batch(
        &mut service,
        "SET session_replication_role = replica;
         INSERT INTO presence.declared_statuses (user_id, source, status, by_user)
             VALUES ($1, 'visibility', 'invisible', true);
         SET session_replication_role = origin",
        replicated,
    );
    late.commit().unwrap();
    for user in [replicated, committed_late] {
        wait_for_shown(&mut service, user, "active");
        assert_shown(&mut service, user, "active");
    }
    // A service ends what only waits, for good.
    service.execute(SHOW, &[&replicated]).unwrap();
    server.cluster.set("presence.allow_invisible", "on");
    wait_for_shown(&mut service, committed_late, "inactive");
    assert_shown(&mut service, replicated, "active");
}

#[test]
fn a_setting_that_cannot_be_applied_is_named_as_the_reason_and_is_applied_once_it_can_be() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    let mut client = database.client_for(user);
    client.execute("SELECT presence.set_invisible(true)", &[]).unwrap();
    assert_shown(&mut service, user, "inactive");
    let refuse = "ALTER TABLE presence.declared_statuses ADD CONSTRAINT refuse CHECK (shown_at IS NULL)";
    service.batch_execute(refuse).unwrap();
    server.cluster.set("presence.allow_invisible", "off");
    let error =
        "SELECT coalesce(last_error, '') ~ 'could not apply presence.allow_invisible' FROM presence.presence_stats";
    wait_until_equal("the error", &true, || service.query_one(error, &[]).unwrap().get(0));
    // Nothing else waits for it.
    assert_shown(&mut service, user, "inactive");
    online(&mut service);
    let accept = "ALTER TABLE presence.declared_statuses DROP CONSTRAINT refuse";
    service.batch_execute(accept).unwrap();
    wait_for_shown(&mut service, user, "active");
    assert_shown(&mut service, user, "active");
}

#[test]
fn what_is_declared_shows_of_who_has_hidden_before_whatever_its_source() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    service.execute(HIDE, &[&user]).unwrap();
    service.execute(SHOW, &[&user]).unwrap();
    assert_shown(&mut service, user, "active");
    // Rows before and after the one that has hidden the user.
    for source in ["calendar", "zoom"] {
        declare(&mut service, user, &format!("'busy', source => '{source}'"));
        assert_shown(&mut service, user, "busy");
        let sql = "SELECT presence.clear_status($1, $2)";
        service.execute(sql, &[&source, &user]).unwrap();
        assert_shown(&mut service, user, "active");
    }
}
