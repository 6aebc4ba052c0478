//! The database stops answering, without closing a connection.

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use pg_presence_test::{Cluster, Database, signal, try_signal, wait_until};
use serde_json::Value;

use super::{AMARA, BEN, Dashboard, Stream, set_up};
use crate::proxy::{Cut, Proxy};

/// The size of the dashboard's pool.
const POOL: usize = 8;

/// Stopped processes of the server, continued when dropped.
struct Stopped(Vec<i32>);

impl Stopped {
    /// Stops all connections of the dashboard's pool, once it is full.
    fn pool(database: &Database, dashboard: &Dashboard, cookie: &str, session: &Value) -> Stopped {
        let mut postgres = database.connect();
        let mut in_state = |state: &str| -> Vec<i32> {
            let sql = format!(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dashboard'
                 AND {state}"
            );
            let rows = postgres.query(&sql, &[]).unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        };
        let mut blocker = database.connect();
        let mut blocking = blocker.transaction().unwrap();
        blocking.batch_execute("LOCK TABLE app.logins").unwrap();
        thread::scope(|scope| {
            for _ in 0..POOL {
                scope.spawn(|| dashboard.heartbeat(cookie, session));
            }
            wait_until("the pool is full", || {
                in_state("wait_event_type = 'Lock'").len() == POOL
            });
            blocking.commit().unwrap();
        });
        wait_until("the pool is idle", || in_state("state = 'idle'").len() == POOL);
        let stopped = Stopped(in_state("state = 'idle'"));
        for pid in &stopped.0 {
            signal("STOP", *pid);
        }
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        try_signal("CONT", &self.0);
    }
}

fn rename(database: &Database, user: &str, name: &str) {
    database.run(&format!("UPDATE app.users SET name = '{name}' WHERE id = '{user}'"));
}

/// Waits until the stream says that it is cut, and asserts since when.
fn assert_is_cut(stream: &Stream, opened: u128, cut: u128) {
    let data = stream.wait_for("the stream to say that it is cut", |name, _| name == "disconnected");
    let since = data["since"].as_u64().map(u128::from);
    assert!(since.is_some_and(|since| (opened..=cut).contains(&since)), "{data}");
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// Asserts that a heartbeat is refused, and when to try again.
fn assert_unavailable(dashboard: &Dashboard, cookie: &str, session: &Value) {
    let answer = dashboard.heartbeat(cookie, session);
    assert_eq!(answer.status(), 503);
    let retry_after = answer.headers()["retry-after"].to_str().unwrap();
    assert!(retry_after.parse::<u32>().unwrap() > 0, "{retry_after}");
}

#[test]
fn backends_that_stand_still_are_given_up_and_the_stream_says_since_when() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let opened = now();
    let dashboard = Dashboard::start(&database);
    let cookie = dashboard.sign_in(AMARA);
    let session = dashboard.start_session(&cookie);
    let stream = dashboard.stream(&cookie);
    let _stopped = Stopped::pool(&database, &dashboard, &cookie, &session);
    let cut = now();
    rename(&database, BEN, "Ben the Second");
    assert_unavailable(&dashboard, &cookie, &session);
    assert_is_cut(&stream, opened, cut);
    // With new connections everything works, although the old ones still stand still.
    stream.wait_until_shown("the new name", |users| users[BEN]["name"] == "Ben the Second");
    wait_until("heartbeats are answered", || {
        dashboard.heartbeat(&cookie, &session).status() == 200
    });
}

#[test]
fn connections_that_nothing_comes_through_are_given_up_and_the_stream_says_since_when() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let proxy = Proxy::new(&cluster);
    let opened = now();
    let dashboard = Dashboard::start_with(&database, &format!("host=127.0.0.1 port={}", proxy.port));
    let cookie = dashboard.sign_in(AMARA);
    let session = dashboard.start_session(&cookie);
    let stream = dashboard.stream(&cookie);
    proxy.cut(Cut::Everything);
    let cut = now();
    rename(&database, BEN, "Ben the Third");
    assert_unavailable(&dashboard, &cookie, &session);
    // New connections are not answered, either.
    assert_unavailable(&dashboard, &cookie, &session);
    assert_is_cut(&stream, opened, cut);
    proxy.cut(Cut::Nothing);
    stream.wait_until_shown("the new name", |users| users[BEN]["name"] == "Ben the Third");
    wait_until("heartbeats are answered", || {
        dashboard.heartbeat(&cookie, &session).status() == 200
    });
}
