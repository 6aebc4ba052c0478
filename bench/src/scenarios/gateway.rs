//! A gateway whose sessions are bound to its connection: what binding costs, and how soon its end is known.

use std::{
    thread,
    time::{Duration, Instant},
};

use pg_presence_test::wait_until;
use postgres::Client;
use serde_json::json;

use super::worker::notified;
use crate::{
    env::Env,
    results::Results,
    server::Server,
    summary::{Summary, count},
};

/// The extension's defaults, unlike on the large server.
const DEFAULTS: &[(&str, &str)] = &[("presence.active_timeout", "5min"), ("presence.flush_interval", "90s")];
const GRACE: Duration = Duration::from_secs(1);
const ONLINE_COUNT: &str = "SELECT presence.online_count()";

/// What one gateway's life took; times in seconds.
struct Life {
    binding: f64,
    /// From the end of its connection until the process has exited, with all sessions released.
    exit: f64,
    /// From the end of the grace of the last session until readers are right, and until the count is that the sweep keeps.
    readers: f64,
    count: f64,
    /// From the end of the grace until the first and until the last change is notified.
    first: f64,
    all: f64,
}

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let sessions = scale.pick(10_000, 100_000);
    let mut server = Server::new(sessions, DEFAULTS);
    server.load(sessions);
    let lives: Vec<Life> = (0..scale.long_rounds).map(|_| live_and_die(&server)).collect();
    let mut results = Results::new("gateway", "A gateway dies");
    let all = count(sessions, "session");
    let of = |of: fn(&Life) -> f64| Summary::of(lives.iter().map(of));
    results.figure(format!("{all} bound to a connection"), "s", of(|life| life.binding));
    results.figure(
        "the connection has ended, all are released",
        "ms",
        of(|life| life.exit * 1000.0),
    );
    results.figure(
        "online_users() is right after the grace",
        "ms",
        of(|life| life.readers * 1000.0),
    );
    results.figure(
        "online_count() is right after the grace",
        "ms",
        of(|life| life.count * 1000.0),
    );
    results.figure("first change notified after the grace", "s", of(|life| life.first));
    results.figure(
        format!("{all}: all written and notified after the grace"),
        "s",
        of(|life| life.all),
    );
    results.turns = json!({
        "binding_s": lives.iter().map(|life| life.binding).collect::<Vec<_>>(),
        "exit_s": lives.iter().map(|life| life.exit).collect::<Vec<_>>(),
        "readers_s": lives.iter().map(|life| life.readers).collect::<Vec<_>>(),
        "count_s": lives.iter().map(|life| life.count).collect::<Vec<_>>(),
        "first_s": lives.iter().map(|life| life.first).collect::<Vec<_>>(),
        "all_s": lives.iter().map(|life| life.all).collect::<Vec<_>>(),
    });
    results
}

fn live_and_die(server: &Server) -> Life {
    let mut gateway = server.connect("bench_service");
    gateway.prepare("SELECT presence.bind_sessions($1, '1 s')");
    let began = Instant::now();
    server.execute_for_all(&mut gateway);
    let binding = began.elapsed().as_secs_f64();
    server.wait_until_written();
    let mut listener = server.connect("bench_service");
    listener.run("LISTEN presence");
    let seq: i64 = server.value("SELECT seq FROM presence.presence_cursor()");
    let mut observer = server.superuser();
    let shown = number(&mut observer, ONLINE_COUNT) - server.sessions as i64;
    let pid = gateway.pid;
    let end = Instant::now();
    drop(gateway);
    wait_until("the gateway's process to exit", || {
        let rows = observer.query("SELECT FROM pg_stat_activity WHERE pid = $1", &[&pid]);
        rows.expect("rows").is_empty()
    });
    let exit = end.elapsed();
    // The last session was released a moment after the first.
    let due = end + exit + GRACE;
    thread::sleep(due.saturating_duration_since(Instant::now()));
    let mut until_right = |sql| {
        wait_until(sql, || number(&mut observer, sql) <= shown);
        due.elapsed().as_secs_f64()
    };
    let readers = until_right("SELECT count(*) FROM presence.online_users()");
    let count = until_right(ONLINE_COUNT);
    Life {
        binding,
        exit: exit.as_secs_f64(),
        readers,
        count,
        first: notified(&mut listener, seq + 1, end + GRACE),
        all: notified(&mut listener, seq + server.sessions as i64, end + GRACE),
    }
}

fn number(client: &mut Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).expect("a number").get(0)
}
