//! Memory that an argument sizes: where there is none, the call fails, and the server goes on.

use std::fs;

use pg_presence_test::{Cluster, Presence, error_of};
use postgres::{Client, error::SqlState};
use uuid::Uuid;

const MB: u64 = 1024 * 1024;

/// Allows the connection's process only `bytes` more memory than it has.
fn limit_memory(client: &mut Client, bytes: u64) {
    let pid = client.process_id();
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    // By the server, as the process belongs to its user.
    let limit = format!(
        "COPY (SELECT) TO PROGRAM 'cat && prlimit --pid {pid} --as={}:'",
        pages * 4096 + bytes
    );
    client.batch_execute(&limit).unwrap();
}

#[test]
fn rows_that_the_roster_has_no_room_for_need_no_memory_until_the_commit() {
    // The transaction may take a minute.
    let cluster = Cluster::private(&[("presence.max_sessions", "1000"), ("presence.active_timeout", "1h")]);
    let database = cluster.database();
    let mut client = database.connect();
    client.start(Uuid::new_v4());
    limit_memory(&mut client, 13 * MB);
    let mut transaction = client.transaction().unwrap();
    let sql = "INSERT INTO presence.user_sessions (user_id) SELECT gen_random_uuid() FROM generate_series(1, 80000)";
    transaction.execute(sql, &[]).unwrap();
    // A session of this transaction's own, of which nothing is kept.
    let sql = "SELECT id, user_id, presence.heartbeat(id) FROM presence.user_sessions ORDER BY ctid DESC LIMIT 1";
    let row = transaction.query_one(sql, &[]).unwrap();
    let (session, user): (Uuid, Uuid) = (row.get(0), row.get(1));
    assert_eq!(row.get::<_, &str>(2), "ok");
    let mut other = database.connect();
    assert_eq!(other.beat(session), "unknown");
    assert!(!other.is_online(user));
    transaction.commit().unwrap();
    assert!(other.is_online(user));
    assert_eq!(other.beat(session), "ok");
    assert_eq!(other.online_count(), 80_001);
}

#[test]
fn a_call_for_which_there_is_no_memory_fails_alone() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    database.run(
        "CREATE TABLE many AS
             SELECT array_agg(gen_random_uuid()) AS ids, array_agg(n::text) AS keys
             FROM generate_series(1, 500000) n",
    );
    let mut bystander = database.connect();
    let mut refused = 0;
    for (call, limits) in [
        (
            "SELECT count(*) FROM many, presence.presence_of(ids)",
            &[12, 20, 28, 36, 50, 70, 90, 120][..],
        ),
        (
            "SELECT count(*) FROM many, presence.presence_of(user_keys => keys)",
            &[24, 40, 60, 80][..],
        ),
        ("SELECT presence.end_sessions(ids) FROM many", &[12][..]),
        ("SELECT presence.release_sessions(ids) FROM many", &[12][..]),
        ("SELECT presence.bind_sessions(ids) FROM many", &[12][..]),
        (
            "SELECT presence.start_session(user_key => repeat('x', 100000000))",
            &[150, 250][..],
        ),
    ] {
        for limit in limits {
            let mut client = database.connect();
            // Loads what the call needs besides.
            client
                .query("SELECT * FROM presence.presence_of(ARRAY[gen_random_uuid()])", &[])
                .unwrap();
            limit_memory(&mut client, limit * MB);
            if let Err(error) = client.query(call, &[]) {
                let error = error_of::<()>(Err(error));
                assert!(
                    [&SqlState::OUT_OF_MEMORY, &SqlState::INVALID_PARAMETER_VALUE].contains(&error.code()),
                    "{call}, {limit} MB: {error:?}"
                );
                refused += 1;
            }
            assert!(!bystander.is_online(Uuid::new_v4()), "{call}, {limit} MB");
        }
    }
    assert!(refused >= 8, "{refused}");
    assert!(!cluster.log().contains("terminated by signal"));
}
