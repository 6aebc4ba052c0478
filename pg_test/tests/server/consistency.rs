//! Whatever many connections do at once, in whatever transactions: when they are done, memory, tables and feed agree.

use std::thread;

use pg_presence_test::{Cluster, Database, Presence, Rng, wait_until};
use postgres::Client;
use uuid::Uuid;

const CONNECTIONS: u64 = 6;
const STEPS: u64 = 250;
const USERS: u64 = 12;

fn user(rng: &mut Rng) -> Uuid {
    Uuid::from_u128(0x4000_8000_0000_0000_0000 | u128::from(rng.below(USERS) + 1))
}

/// Makes one connection's random changes. Each picks any session of the table.
fn change_at_random(client: &mut Client, rng: &mut Rng) {
    for _ in 0..STEPS {
        let user = user(rng);
        let some = format!(
            "(SELECT id FROM presence.user_sessions ORDER BY md5(id::text || {}) LIMIT 1)",
            rng.below(1000)
        );
        let step = match rng.below(12) {
            0 | 1 => format!("SELECT presence.start_session(user_id => '{user}')"),
            2 => format!("INSERT INTO presence.user_sessions (user_id) VALUES ('{user}')"),
            3 => format!("SELECT presence.end_session({some})"),
            4 => format!("UPDATE presence.user_sessions SET is_active = false WHERE id = {some}"),
            5 => format!("DELETE FROM presence.user_sessions WHERE id = {some}"),
            6 => {
                format!("UPDATE presence.user_sessions SET last_activity = now() WHERE id = {some}")
            }
            7 => format!("UPDATE presence.user_sessions SET user_id = '{user}' WHERE id = {some} AND user_key IS NULL"),
            8 => format!("SELECT presence.rotate_session_token({some})"),
            9 => format!("SELECT presence.end_user_sessions('{user}')"),
            _ => format!("SELECT presence.heartbeat({some})"),
        };
        let whole = match rng.below(6) {
            0 => format!("BEGIN; {step}; ROLLBACK"),
            1 => format!("BEGIN; SAVEPOINT s; {step}; ROLLBACK TO s; {step}; COMMIT"),
            2 => format!("BEGIN; SAVEPOINT s; {step}; RELEASE s; {step}; COMMIT"),
            _ => step,
        };
        // On a deadlock PostgreSQL aborts one of the two, and a call gives up after it has waited for ten seconds.
        if let Err(error) = client.batch_execute(&whole) {
            let code = error.code().map(|code| code.code());
            assert!(matches!(code, Some("40P01" | "55P03")), "{error:?}");
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
}

fn change_concurrently(database: &Database, seed: u64) {
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            scope.spawn(move || {
                let mut rng = Rng::new(seed * 1000 + number + 1);
                change_at_random(&mut database.connect(), &mut rng);
            });
        }
    });
}

fn users(client: &mut Client, sql: &str) -> Vec<Uuid> {
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn number(client: &mut Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).unwrap().get(0)
}

/// Asserts that everything else agrees with the table.
fn assert_agreement(database: &Database, whole: bool) {
    let mut client = database.connect();
    let by_table = users(
        &mut client,
        "SELECT DISTINCT user_id FROM presence.user_sessions
         WHERE is_active AND ended_at IS NULL ORDER BY 1",
    );
    assert_eq!(client.online_users(), by_table);
    assert_eq!(client.online_count(), by_table.len() as i64);
    for number in 1..=USERS {
        let user = Uuid::from_u128(0x4000_8000_0000_0000_0000 | u128::from(number));
        assert_eq!(client.is_online(user), by_table.contains(&user), "{user}");
    }
    if whole {
        let sessions = "SELECT count(*) FROM presence.user_sessions WHERE is_active AND ended_at IS NULL";
        let known = "SELECT live_sessions FROM presence.presence_stats";
        assert_eq!(number(&mut client, sessions), number(&mut client, known));
    }
    let written = "SELECT user_id FROM presence.user_presence WHERE is_online ORDER BY 1";
    // The feed, replayed from its beginning, ends there too.
    let replayed = "SELECT user_id FROM (
            SELECT DISTINCT ON (user_id) user_id, status FROM presence.presence_changes ORDER BY user_id, seq DESC
        ) last WHERE status = 'active' ORDER BY 1";
    wait_until("everybody's last status is written", || {
        [written, replayed]
            .iter()
            .all(|sql| users(&mut client, sql) == by_table)
    });
    let gaps = "SELECT max(seq) - count(*) FROM presence.presence_changes";
    assert_eq!(number(&mut client, gaps), 0, "numbers without gaps");
}

/// Deletes all sessions and asserts that nothing is left in memory.
fn assert_emptied(database: &Database) {
    let mut client = database.connect();
    client.batch_execute("DELETE FROM presence.user_sessions").unwrap();
    wait_until("memory is empty", || {
        let row = client
            .query_one(
                "SELECT live_sessions, known_sessions, users_online, known_users, used
                 FROM presence.presence_stats",
                &[],
            )
            .unwrap();
        (0..5).all(|column| row.get::<_, i64>(column) == 0)
    });
    assert_eq!(client.online_count(), 0);
}

#[test]
fn memory_tables_and_feed_agree_after_random_concurrent_changes() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    for seed in 1..=2 {
        change_concurrently(&database, seed);
        assert_agreement(&database, true);
    }
    assert_emptied(&database);
}

#[test]
fn they_agree_when_memory_is_too_small() {
    let cluster = Cluster::private(&[("presence.max_sessions", "64")]);
    let database = cluster.database();
    // More than fit, before the changes begin.
    database.run("SELECT presence.start_sessions(array_agg(gen_random_uuid())) FROM generate_series(1, 100)");
    change_concurrently(&database, 3);
    assert_agreement(&database, false);
    assert_emptied(&database);
}

#[test]
fn they_agree_while_the_worker_keeps_being_replaced() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    thread::scope(|scope| {
        let changing = scope.spawn(|| change_concurrently(&database, 4));
        let mut client = database.connect();
        while !changing.is_finished() {
            client
                .batch_execute(
                    "SELECT pg_terminate_backend(worker_pid) FROM presence.presence_stats WHERE worker_pid IS NOT NULL;
                     SELECT pg_sleep(0.2)",
                )
                .unwrap();
        }
    });
    assert_agreement(&database, true);
    assert_emptied(&database);
}
