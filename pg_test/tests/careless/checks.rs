//! What holds after each step, whatever has been done before.

use pg_presence_test::{Cluster, wait_for};
use postgres::{Client, error::SqlState};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};
use uuid::Uuid;

use crate::place::{Actor, Place, TABLES};

/// The SQLSTATEs with which the server says that something is not permitted, or is not there under this name or type
/// because somebody has renamed or altered it.
fn is_refusal(code: &SqlState) -> bool {
    matches!(
        code.code(),
        "42501"
            | "55000"
            | "42703"
            | "42P01"
            | "42883"
            | "42704"
            | "42804"
            | "3F000"
            | "55P03"
            | "0A000"
            | "42846"
            | "42P18"
            | "42P10"
    )
}

fn refused_with(error: &postgres::Error, what: &str) {
    assert!(error.code().is_some_and(is_refusal), "{what}: {error:?}");
}

/// Runs a statement that must be refused.
pub fn assert_refused(client: &mut Client, sql: &str, what: &str) {
    match client.batch_execute(sql) {
        Ok(()) => panic!("{what} was permitted: {sql}"),
        Err(error) => refused_with(&error, &format!("{what}: {sql}")),
    }
}

/// Runs a query that must return no row of others, or be refused.
fn assert_nothing(client: &mut Client, sql: &str, what: &str) {
    match client.execute(sql, &[]) {
        Ok(rows) => assert_eq!(rows, 0, "{what} can reach others' rows: {sql}"),
        Err(error) => refused_with(&error, &format!("{what}: {sql}")),
    }
}

/// Runs a query for one value that must be this one or null, or be refused.
fn assert_answer(client: &mut Client, sql: &str, expected: &str, what: &str) {
    match client.query_one(sql, &[]) {
        Ok(row) => {
            let answer: Option<String> = row.get(0);
            assert!(
                answer.as_deref().is_none_or(|answer| answer == expected),
                "{what}: {sql}: {answer:?}"
            );
        }
        Err(error) => refused_with(&error, &format!("{what}: {sql}")),
    }
}

/// Asserts that nobody has a right too many, over the session of a user and over everything else. `opened` is whether the
/// owner has opened the rows of others.
pub fn assert_rights(place: &Place, user: Uuid, session: Uuid, opened: bool) {
    let schema = place.schema();
    for actor in [Actor::Eve, Actor::Client] {
        let mut client = place.session(actor);
        let own = Uuid::new_v4();
        let claims = format!(r#"SET request.jwt.claims = '{{"sub":"{own}"}}'"#);
        client.batch_execute(&claims).expect("to set the claims");
        let who = place.role(actor);
        let tables = TABLES.map(|table| place.fill(&format!("{{{table}}}"), 0));
        let [sessions, presence, changes, state, declared] = &tables;
        if !opened {
            for sql in [
                format!("SELECT FROM {sessions}"),
                format!("SELECT session_token FROM {sessions}"),
                format!("UPDATE {sessions} SET metadata = '{{}}'"),
                format!("UPDATE {sessions} SET is_active = false"),
                format!("DELETE FROM {sessions}"),
                format!("DELETE FROM {presence}"),
                format!("DELETE FROM {changes}"),
                format!("SELECT FROM {state}"),
                format!("UPDATE {state} SET seq = 0"),
                format!("UPDATE {presence} SET is_online = false"),
                format!("SELECT FROM {declared}"),
                format!("UPDATE {declared} SET status = 'busy'"),
                format!("DELETE FROM {declared}"),
            ] {
                assert_nothing(&mut client, &sql, &who);
            }
            for (table, name) in tables.iter().zip(TABLES) {
                assert_refused(
                    &mut client,
                    &format!("TRUNCATE {table}"),
                    &format!("{who} truncates {name}"),
                );
            }
        }
        for sql in [
            format!("SELECT {schema}.forget_user('{user}')"),
            format!("SELECT {schema}.start_session('{user}')"),
            format!("SELECT * FROM {schema}.start_sessions(ARRAY['{user}'::uuid])"),
            format!("SELECT {schema}.end_user_sessions('{user}')"),
        ] {
            assert_refused(&mut client, &sql, &who);
        }
        for (sql, expected) in [
            (format!("SELECT {schema}.is_service()::text"), "false"),
            (format!("SELECT {schema}.heartbeat('{session}')"), "unknown"),
            (format!("SELECT {schema}.end_session('{session}')::text"), "false"),
            (format!("SELECT {schema}.release_session('{session}')::text"), "false"),
        ] {
            assert_answer(&mut client, &sql, expected, &who);
        }
        match client.query_one(&format!("SELECT {schema}.rotate_session_token('{session}')"), &[]) {
            Ok(row) => assert_eq!(row.get::<_, Option<String>>(0), None, "{who} has the token of another"),
            Err(error) => refused_with(&error, &who),
        }
    }
    let mut superuser = place.connect();
    let sql = "SELECT count(*) FROM pg_roles WHERE (rolsuper OR rolbypassrls) AND rolname <> 'postgres'";
    let count: i64 = superuser.query_one(sql, &[]).expect("the roles").get(0);
    assert_eq!(count, 0, "somebody has become a superuser");
}

/// The server as it was when the walk began.
pub struct ServerWatch {
    started: String,
    /// How much of the log has been read.
    read: u64,
}

impl ServerWatch {
    pub fn new(cluster: &Cluster) -> ServerWatch {
        ServerWatch {
            started: wait_for("the launcher", || {
                Some(started(cluster)).filter(|started| !started.is_empty())
            }),
            read: 0,
        }
    }

    /// Asserts that the server has not crashed, and that the log says nothing of a crash, an internal error or code of
    /// others.
    pub fn check(&mut self, cluster: &Cluster) {
        let mut log = File::open(cluster.socket_directory().join("log")).expect("the log");
        log.seek(SeekFrom::Start(self.read)).expect("to read on");
        let mut added = Vec::new();
        log.read_to_end(&mut added).expect("the log");
        // Whole lines only.
        let whole = added.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.read += whole as u64;
        const SIGNS: [&str; 7] = [
            "panicked",
            "PANIC: ",
            " XX00",
            "was terminated by signal",
            "invalid memory",
            "TRAP: ",
            "LOG:  code of others runs",
        ];
        for line in String::from_utf8_lossy(&added[..whole]).lines() {
            let bad = SIGNS.iter().any(|sign| line.contains(sign));
            assert!(!bad, "the log contains {line}");
        }
        assert_eq!(started(cluster), self.started, "the server has crashed");
    }
}

/// When the server and its launcher have started, and the launcher's process.
fn started(cluster: &Cluster) -> String {
    let sql = "SELECT concat_ws(' ', pg_postmaster_start_time(), pid, backend_start) FROM pg_stat_activity
                WHERE backend_type = 'pg_presence launcher'";
    let mut client = cluster.connect("postgres");
    let row = client.query_opt(sql, &[]).expect("the processes");
    row.map_or_else(String::new, |row| row.get(0))
}
