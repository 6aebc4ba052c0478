//! The log: names cannot forge it, and nobody waits for whoever reads it.

use pg_presence_test::Cluster;

use super::{AMARA, Dashboard, set_up};

#[test]
fn a_name_cannot_forge_or_reverse_a_line() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let name = r"U&'Eve\000A12:00:00  Amara Okafor is active\202E\001B[2K'";
    database.run(&format!("UPDATE app.users SET name = {name} WHERE id = '{AMARA}'"));
    let dashboard = Dashboard::start(&database);
    let cookie = dashboard.sign_in(AMARA);
    dashboard.stream(&cookie);
    dashboard.start_session(&cookie);
    dashboard.running.wait_for(|line| line.contains("Eve"));
    let output = dashboard.running.output();
    let line = output.iter().find(|line| line.contains("Eve")).unwrap();
    let expected = r"🟢 Eve\n12:00:00  Amara Okafor is active\u{202e}\u{1b}[2K is active";
    assert!(line.ends_with(expected), "{line}");
    assert!(!output.iter().any(|line| line.starts_with("12:00:00")), "{output:?}");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    // More lines than the pipe and the queue have room for.
    database.run("INSERT INTO app.users (name) SELECT rpad('User ' || n, 100, '.') FROM generate_series(1, 1000) n");
    let dashboard = Dashboard::start(&database);
    let cookie = dashboard.sign_in(AMARA);
    let stream = dashboard.stream(&cookie);
    let all_are = |online: bool| {
        stream.wait_until_shown(if online { "all online" } else { "all offline" }, |users| {
            users.len() > 1000 && users.values().all(|user| user["is_online"] == online)
        });
    };
    let unread = dashboard.running.stop_reading();
    database.run("SELECT presence.start_session(user_id => id) FROM app.users");
    all_are(true);
    database.run("SELECT presence.end_user_sessions(id) FROM app.users");
    all_are(false);
    dashboard.stream(&cookie);
    drop(unread);
    dashboard
        .running
        .wait_for(|line| line.ends_with("because nobody read the log"));
}
