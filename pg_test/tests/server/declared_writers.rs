//! Who may declare what of whom, by functions and by plain SQL.

use pg_presence_test::{Cluster, Presence, assert_denied, assert_refused, wait_until};
use postgres::error::SqlState;
use uuid::Uuid;

use crate::{
    declared::{assert_shown, count, declare, online, shown},
    hours::Server,
};

#[test]
fn services_declare_with_plain_sql_and_copy_as_with_the_functions() {
    let database = Cluster::shared().database();
    let mut service = database.connect_as(&database.service());
    let users: Vec<Uuid> = (0..3).map(|_| online(&mut service)).collect();
    let row = "INSERT INTO presence.declared_statuses (user_id, source, status, status_text, emoji)
               VALUES ($1, 'calendar', 'dnd', '', '🎧')";
    service.execute(row, &[&users[0]]).unwrap();
    assert_shown(&mut service, users[0], "busy 🎧");
    // A role that row-level security applies to cannot copy rows into a table.
    let mut owner = database.connect();
    let mut copy = owner
        .copy_in("COPY presence.declared_statuses (user_id, status, expires_at) FROM STDIN")
        .unwrap();
    let rows = format!("{}\tbusy\tinfinity\n{}\taway\t2000-01-01\n", users[1], users[2]);
    std::io::Write::write_all(&mut copy, rows.as_bytes()).unwrap();
    copy.finish().unwrap();
    assert_shown(&mut service, users[1], "busy expires");
    assert_eq!(shown(&mut service, users[2]), "active");
    // To another user, and to another word.
    let sql = "UPDATE presence.declared_statuses SET user_id = $1, status = 'away' WHERE user_id = $2";
    service.execute(sql, &[&users[2], &users[0]]).unwrap();
    assert_shown(&mut service, users[0], "active");
    assert_shown(&mut service, users[2], "idle 🎧");
    let sql = "DELETE FROM presence.declared_statuses WHERE user_id = $1";
    service.execute(sql, &[&users[2]]).unwrap();
    assert_shown(&mut service, users[2], "active");
    owner.batch_execute("TRUNCATE presence.declared_statuses").unwrap();
    assert_shown(&mut owner, users[1], "active");
    owner.assert_no_gaps();
}

#[test]
fn clients_declare_for_themselves_and_see_their_own_rows() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (me, other) = (online(&mut service), online(&mut service));
    let mut client = database.client_for(me);
    declare(&mut service, other, "'busy'");
    let row = client
        .query_one(
            "SELECT user_id, source, status, status_text FROM presence.set_status('busy', 'writing')",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, Uuid>(0), me);
    assert_eq!(row.get::<_, &str>(1), "manual");
    assert_eq!((row.get::<_, &str>(2), row.get::<_, &str>(3)), ("busy", "writing"));
    client
        .execute(
            "SELECT presence.set_status(status_text => 'still', source => 'text', user_id => $1)",
            &[&me],
        )
        .unwrap();
    assert_shown(&mut service, me, "busy still");
    assert_eq!(client.user_status(me), "busy");
    declare(&mut service, me, "'away', source => 'calendar'");
    let rows = client
        .query("SELECT user_id FROM presence.declared_statuses", &[])
        .unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.get::<_, Uuid>(0) == me));

    for call in [
        format!("set_status('busy', user_id => '{other}')"),
        format!("clear_status(user_id => '{other}')"),
        "set_status('busy', source => 'calendar')".to_owned(),
        "clear_status('calendar')".to_owned(),
        "set_status('busy', source => 'visibility')".to_owned(),
    ] {
        assert_denied(client.batch_execute(&format!("SELECT presence.{call}")));
    }
    for statement in [
        "INSERT INTO presence.declared_statuses (status) VALUES ('busy')",
        "UPDATE presence.declared_statuses SET status = 'away'",
        "DELETE FROM presence.declared_statuses",
        "TRUNCATE presence.declared_statuses",
        "SELECT FROM presence.declared_statuses FOR UPDATE",
        "BEGIN; LOCK TABLE presence.declared_statuses IN ROW EXCLUSIVE MODE",
    ] {
        assert_denied(client.batch_execute(statement));
    }
    client.batch_execute("ROLLBACK").unwrap();
    assert!(
        client
            .query_one("SELECT presence.clear_status()", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    assert!(
        !client
            .query_one("SELECT presence.clear_status()", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    client.claim("");
    assert_denied(client.batch_execute("SELECT presence.set_status('busy')"));
    assert_eq!(
        client
            .query("SELECT FROM presence.declared_statuses", &[])
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn a_reader_sees_statuses_and_not_who_declares_them() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    declare(&mut service, user, "'busy', 'writing', source => 'calendar'");
    let mut reader = database.connect_as(&database.reader());
    assert_shown(&mut reader, user, "busy writing");
    assert_denied(reader.batch_execute("SELECT FROM presence.declared_statuses"));
    assert_denied(reader.batch_execute("SELECT presence.set_status('busy')"));
    let mut nobody = database.connect_as(&database.role("nobody"));
    assert_denied(nobody.batch_execute("SELECT presence.clear_status()"));
}

#[test]
fn a_service_names_the_user() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for call in ["set_status('busy')", "clear_status()"] {
        assert_refused(
            service.batch_execute(&format!("SELECT presence.{call}")),
            &SqlState::INVALID_PARAMETER_VALUE,
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_functions_and_by_plain_sql() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let (long_text, long_emoji) = ("é".repeat(141), "e".repeat(65));
    for arguments in [
        "'invisible'".to_owned(),
        "'Busy'".to_owned(),
        "''".to_owned(),
        "NULL".to_owned(),
        "NULL, '', ''".to_owned(),
        format!("'busy', '{long_text}'"),
        format!("'busy', emoji => '{long_emoji}'"),
        "'busy', source => ''".to_owned(),
        format!("'busy', source => '{}'", "s".repeat(64)),
        "'busy', source => 'visibility'".to_owned(),
        "'busy', expires_in => '0'".to_owned(),
        "'busy', expires_in => '-1 s'".to_owned(),
        "'busy', expires_in => '11 years'".to_owned(),
    ] {
        let sql = format!("SELECT presence.set_status({arguments}, user_id => '{user}')");
        assert_refused(service.batch_execute(&sql), &SqlState::INVALID_PARAMETER_VALUE);
    }
    for (columns, values) in [
        ("status", "'invisible'".to_owned()),
        ("status", "NULL".to_owned()),
        ("status_text", format!("'{long_text}'")),
        ("emoji", format!("'{long_emoji}'")),
        ("status, source", "'busy', 'visibility'".to_owned()),
    ] {
        let sql = format!("INSERT INTO presence.declared_statuses (user_id, {columns}) VALUES ('{user}', {values})");
        assert_refused(service.batch_execute(&sql), &SqlState::INVALID_PARAMETER_VALUE);
        // Where the trigger does not fire, the table's own constraints are left.
        if !values.contains("visibility") {
            let replica = format!("SET LOCAL session_replication_role = replica; {sql}");
            let mut transaction = service.transaction().unwrap();
            let refused = transaction.batch_execute(&replica).unwrap_err();
            assert_eq!(refused.code(), Some(&SqlState::CHECK_VIOLATION), "{sql}");
        }
    }
    let (text, emoji) = ("é".repeat(140), "e".repeat(64));
    declare(
        &mut service,
        user,
        &format!("'away', '{text}', '{emoji}', '10 years', '{}'", "s".repeat(63)),
    );
    assert_eq!(count(&mut service, user), 1);
}

#[test]
fn there_are_at_most_sixteen_sources_of_a_user_and_those_that_have_expired_make_way() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    let many = |count: u32| {
        format!(
            "INSERT INTO presence.declared_statuses (user_id, source, status)
             SELECT '{user}', 's' || n, 'busy' FROM generate_series(1, {count}) n"
        )
    };
    let full = SqlState::CONFIGURATION_LIMIT_EXCEEDED;
    assert_refused(service.batch_execute(&many(17)), &full);
    assert_eq!(count(&mut service, user), 0);
    service.batch_execute(&many(15)).unwrap();
    declare(&mut service, user, "'away', expires_in => '1 h'");
    // Each may say something else.
    declare(&mut service, user, "'away', 'again', expires_in => '1 h'");
    declare(&mut service, user, "'away', source => 's7'");
    let another = format!("SELECT presence.set_status('busy', source => 'another', user_id => '{user}')");
    assert_refused(service.batch_execute(&another), &full);
    let moved = format!(
        "INSERT INTO presence.declared_statuses (user_id, status) VALUES (gen_random_uuid(), 'busy');
         UPDATE presence.declared_statuses SET user_id = '{user}', source = 'moved' WHERE user_id <> '{user}'"
    );
    assert_refused(service.batch_execute(&moved), &full);
    server.pass(2);
    service.batch_execute(&another).unwrap();
    assert_refused(service.batch_execute(&another.replace("another", "one more")), &full);
    assert_eq!(count(&mut service, user), 16);
}

#[test]
fn who_has_more_sources_than_there_may_be_can_still_change_them() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    // As transactions at the same time may leave them.
    let sql = format!(
        "BEGIN; SET LOCAL session_replication_role = replica;
         INSERT INTO presence.declared_statuses (user_id, source, status, set_at)
             SELECT '{user}', 's' || n, 'busy', now() FROM generate_series(1, 20) n; COMMIT"
    );
    service.batch_execute(&sql).unwrap();
    declare(&mut service, user, "'away', source => 's7'");
    assert_shown(&mut service, user, "idle");
    let another = format!("SELECT presence.set_status('busy', source => 'another', user_id => '{user}')");
    assert_refused(service.batch_execute(&another), &SqlState::CONFIGURATION_LIMIT_EXCEEDED);
}

#[test]
fn a_careless_grant_does_not_tell_how_many_sources_another_user_has() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (me, other, nobody) = (online(&mut service), online(&mut service), Uuid::new_v4());
    let sql = "INSERT INTO presence.declared_statuses (user_id, source, status)
               SELECT $1, 's' || n, 'busy' FROM generate_series(1, 16) n";
    service.execute(sql, &[&other]).unwrap();
    let mut client = database.client_for(me);
    service
        .batch_execute("GRANT INSERT ON presence.declared_statuses TO PUBLIC")
        .unwrap();
    let mut refused = |user: Uuid| {
        let sql = "INSERT INTO presence.declared_statuses (user_id, source, status) VALUES ($1, 'x', 'busy')";
        let error = client.execute(sql, &[&user]).unwrap_err();
        let error = error.as_db_error().unwrap();
        (error.code().clone(), error.message().to_owned())
    };
    let expected = refused(nobody);
    assert_eq!(expected.0, SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(refused(other), expected);
    assert_eq!(refused(me), expected);
}

#[test]
fn transactions_that_add_to_the_same_user_count_each_others_rows() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let fifteen = format!(
        "INSERT INTO presence.declared_statuses (user_id, source, status)
         SELECT '{user}', 's' || n, 'busy' FROM generate_series(1, 15) n"
    );
    service.batch_execute(&fifteen).unwrap();
    let mut first = service.transaction().unwrap();
    let sql = "SELECT presence.set_status('busy', source => $2, user_id => $1)";
    first.execute(sql, &[&user, &"a"]).unwrap();
    let (mut other, mut observer) = (database.connect(), database.connect());
    other.wait_for_locks();
    let second = std::thread::spawn(move || other.execute(sql, &[&user, &"b"]));
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'object'
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    wait_until("the second to wait", || {
        observer.query_one(waits, &[]).unwrap().get::<_, i64>(0) == 1
    });
    first.commit().unwrap();
    assert_refused(second.join().unwrap(), &SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    assert_eq!(count(&mut service, user), 16);
}
