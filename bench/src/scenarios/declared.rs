//! Declared statuses and hiding, beside a table of one's own that notifies; and how late it is told that a status expires.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    burst::{self, Burst, Rate},
    connection::Connection,
    env::Env,
    results::Results,
    server::Server,
    summary::{Summary, quantile},
};

const HIDE: &str = "SELECT presence.set_invisible(true, user_id => $1)";
const SHOW: &str = "SELECT presence.set_invisible(false, user_id => $1)";

/// Each changes the text, or hides who is shown and shows who is hidden: the same again would be no change.
const SET: [Burst; 5] = [
    one(
        "set_status",
        "SELECT presence.set_status('busy', clock_timestamp()::text, user_id => $1)",
    ),
    one(
        "INSERT into declared_statuses",
        "INSERT INTO presence.declared_statuses (user_id, status, status_text)
         VALUES ($1, 'busy', clock_timestamp()::text)
         ON CONFLICT (user_id, source) DO UPDATE
         SET status = excluded.status, status_text = excluded.status_text, set_at = excluded.set_at",
    ),
    one("set_invisible", HIDE),
    one(
        "table with NOTIFY, status",
        "INSERT INTO statuses.statuses (user_id, status, status_text) VALUES ($1, 'busy', clock_timestamp()::text)
         ON CONFLICT (user_id) DO UPDATE
         SET status = excluded.status, status_text = excluded.status_text, set_at = excluded.set_at",
    ),
    one(
        "table with NOTIFY, invisible",
        "INSERT INTO statuses.statuses AS s (user_id, is_invisible) VALUES ($1, true)
         ON CONFLICT (user_id) DO UPDATE SET is_invisible = NOT s.is_invisible, set_at = excluded.set_at",
    ),
];
const COMPARED: [(usize, usize); 3] = [(0, 3), (1, 3), (2, 4)];

const fn one(name: &'static str, sql: &'static str) -> Burst<'static> {
    Burst {
        name,
        connections: 4,
        batch: 1,
        sql,
        parameters: burst::one_id,
    }
}

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let sessions = scale.pick(10_000, 100_000);
    let (rounds, users) = scale.pick((2, 200), (10, 2000));
    let mut server = Server::new(sessions, &[]);
    server.load(sessions);
    server.run(include_str!("../alternatives/statuses.sql"));
    let mut rates: [Vec<Rate>; SET.len()] = Default::default();
    let mut until_written: [Vec<f64>; SET.len()] = Default::default();
    // The first round, which makes the rows, is not counted.
    for round in 0..=rounds {
        for turn in 0..SET.len() {
            // Each round starts with a different one.
            let number = (turn + round as usize) % SET.len();
            let began = Instant::now();
            let rate = match &SET[number] {
                // Of other users than those whose status is set.
                Burst { sql: HIDE, .. } => hide_or_show(round).run(&server, users..2 * users),
                burst => burst.run(&server, 0..users),
            };
            server.wait_until_written();
            if round > 0 {
                rates[number].push(rate);
                until_written[number].push(users as f64 / began.elapsed().as_secs_f64());
            }
        }
    }
    let mut results = Results::new("declared", "Declared statuses, beside a table of one's own");
    for (burst, rates) in SET.iter().zip(&rates) {
        results.bursts(burst.name, rates);
    }
    for (at, burst) in SET.iter().enumerate().take(3) {
        results.figure(
            format!("{}, until the last is written and notified", burst.name),
            "/s",
            Summary::of(until_written[at].iter().copied()),
        );
    }
    for (ours, theirs) in COMPARED {
        results.burst_ratio((SET[ours].name, &rates[ours]), (SET[theirs].name, &rates[theirs]));
    }
    let lateness = expire(&server, scale.pick(100, 1000));
    results.figure(
        "told after a status expires",
        "ms",
        Summary::of(lateness.iter().copied()),
    );
    results.figure(
        "told after a status expires, p99",
        "ms",
        Summary::once(quantile(&lateness, 0.99)),
    );
    results.turns = json!({ "bursts": rates, "until_written": until_written, "lateness_ms": lateness });
    results
}

/// Hides users who are shown, or the other way round.
fn hide_or_show(round: u64) -> Burst<'static> {
    let sql = if round.is_multiple_of(2) { HIDE } else { SHOW };
    one("set_invisible", sql)
}

/// Lets the statuses of users expire one after the other, over five seconds. Returns how late each was notified in
/// milliseconds, sorted.
fn expire(server: &Server, users: u64) -> Vec<f64> {
    const SPREAD: f64 = 5.0;
    server.run(&format!(
        "INSERT INTO presence.declared_statuses AS d (user_id, source, status, expires_at)
         SELECT user_id, 'calendar', 'away', now() + interval '3 s' + n * interval '1 s' * {SPREAD} / {users}
           FROM (SELECT user_id, row_number() OVER () AS n FROM presence.user_presence
                  WHERE user_id NOT IN (SELECT user_id FROM presence.declared_statuses) LIMIT {users}) u"
    ));
    server.wait_until_written();
    let mut listener = server.connect("bench_service");
    listener.run("LISTEN presence");
    let rows = server
        .superuser()
        .query(
            "SELECT user_id::text, extract(epoch FROM expires_at)::float8 FROM presence.declared_statuses
              WHERE source = 'calendar' AND expires_at > clock_timestamp() + interval '100 ms'",
            &[],
        )
        .expect("what is declared");
    let mut expected: HashMap<String, f64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(!expected.is_empty(), "all have expired already");
    let mut lateness = Vec::new();
    let began = Instant::now();
    while !expected.is_empty() {
        assert!(began.elapsed() < TIMEOUT, "{} were not notified", expected.len());
        for (user, at) in users_back(&mut listener) {
            if let Some(expires_at) = expected.remove(&user) {
                lateness.push((at - expires_at) * 1000.0);
            }
        }
    }
    lateness.sort_by(f64::total_cmp);
    lateness
}

/// Waits a moment for notifications. Returns the users who are active again by them, and when they were received.
fn users_back(listener: &mut Connection) -> Vec<(String, f64)> {
    listener.wait_for_notifications(Duration::from_millis(100));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    let mut users = Vec::new();
    for payload in std::mem::take(&mut listener.payloads) {
        let message: Value = serde_json::from_str(&payload).expect("JSON");
        for change in message["changes"].as_array().into_iter().flatten() {
            // The declaration itself may be notified only now.
            if change["status"] == "active" {
                let user = change["user_id"].as_str().unwrap_or_default();
                users.push((user.to_owned(), now.as_secs_f64()));
            }
        }
    }
    users
}

/// Generous, for slow machines.
const TIMEOUT: Duration = Duration::from_secs(60);
