//! Tokens must not appear anywhere the server writes or sends; a control text that must appear there shows that the search
//! works.

use std::process::Command;

use pg_presence_test::{Cluster, Database, Presence, Shutdown, error_text, has_module, report, server_major};
use postgres::Client;
use uuid::Uuid;

/// A text that must be found, so that finding no token proves something.
const CONTROL: &str = "control-that-must-be-found";

/// A server that logs all it can, except for parameters, as the README recommends.
fn verbose_server() -> Cluster {
    let cluster = Cluster::private(&[
        (
            "shared_preload_libraries",
            "pg_presence,pg_stat_statements,auto_explain",
        ),
        ("log_min_messages", "debug5"),
        ("log_min_error_statement", "debug5"),
        ("log_error_verbosity", "verbose"),
        ("log_statement", "all"),
        ("log_duration", "on"),
        ("log_min_duration_statement", "0"),
        ("log_replication_commands", "on"),
        ("log_parameter_max_length", "0"),
        ("log_parameter_max_length_on_error", "0"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_nested_statements", "on"),
        ("pg_stat_statements.track", "all"),
        ("track_activity_query_size", "100kB"),
    ]);
    if server_major() >= 16 {
        cluster.configure(&[("auto_explain.log_parameter_max_length", "0")]);
        cluster.restart(Shutdown::Fast);
    }
    cluster
}

/// Every token that was sent or received, and the text of every error.
struct Traces {
    tokens: Vec<String>,
    errors: String,
}

impl Traces {
    /// Uses tokens in every way, valid and invalid, always as a bind parameter.
    fn leave(service: &mut Client, client: &mut Client) -> Traces {
        let mut traces = Traces {
            tokens: Vec::new(),
            errors: String::new(),
        };
        for n in 0..3 {
            let user = Uuid::new_v4();
            client.act_for(user);
            let given = client.start_own();
            let own = format!("a token the client has made {n} {}", Uuid::new_v4());
            let start = "SELECT session_id FROM presence.start_session(session_token => $1)";
            let id: Uuid = client.query_one(start, &[&own]).unwrap().get(0);
            let inserted = format!("a token by plain SQL {n} {}", Uuid::new_v4());
            let insert = "INSERT INTO presence.user_sessions (session_token) VALUES ($1)";
            client.execute(insert, &[&inserted]).unwrap();
            let rotated = client.query_one("SELECT presence.rotate_session_token($1)", &[&id]);
            let rotated: String = rotated.unwrap().get(0);
            for token in [&given.token, &own, &inserted, &rotated] {
                service.beat_by_token(token);
                let release = "SELECT presence.release_session_by_token($1, '1 h')";
                service.query_one(release, &[token]).unwrap();
                service.query_one("SELECT presence.token_digest($1)", &[token]).unwrap();
                let find = "SELECT FROM presence.user_sessions WHERE session_token = presence.token_digest($1)";
                client.query(find, &[token]).unwrap();
                // By another user, in the wrong place, twice, and after the end of the session.
                client.act_for(Uuid::new_v4());
                traces.note(client.execute(start, &[token]));
                traces.note(client.execute(insert, &[token]));
                traces.note(client.execute("SELECT presence.heartbeat($1::text::uuid)", &[&"no uuid"]));
                client.act_for(user);
                traces.note(client.execute(insert, &[token]));
                traces.note(client.execute(start, &[&token.repeat(20)]));
            }
            service
                .query_one("SELECT presence.end_session_by_token($1)", &[&rotated])
                .unwrap();
            traces.note(client.execute(start, &[&rotated]));
            traces.tokens.extend([given.token, own, inserted, rotated]);
        }
        traces
    }

    fn note(&mut self, result: Result<u64, postgres::Error>) {
        if let Err(error) = result {
            self.errors += &error_text(error.as_db_error().expect("an error of the server"));
        }
    }

    /// Asserts that a text contains the control and none of the tokens.
    fn assert_not_in(&self, what: &str, text: &str) {
        assert!(text.contains(CONTROL), "{what} does not contain the control");
        for token in &self.tokens {
            assert!(!text.contains(token.as_str()), "{what} contains {token}");
        }
    }
}

/// Returns every row of a query as text.
fn all(client: &mut Client, sql: &str) -> String {
    let rows = client.query(&format!("SELECT t::text FROM ({sql}) t"), &[]).unwrap();
    rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
}

fn dump(database: &Database, format: &str) -> String {
    let mut pg_dump: Command = database.cluster.program("pg_dump", &database.name);
    let done = pg_dump.arg(format).arg("--compress=0").output().expect("pg_dump");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn no_token_is_stored_or_logged_in_clear_text() {
    let cluster = verbose_server();
    let database = cluster.database();
    let mut service = database.connect();
    database.run("CREATE EXTENSION pg_stat_statements");
    // Newer servers only load the output plugins that are listed.
    let sql = "SELECT FROM pg_settings WHERE name = 'output_plugin_libraries'";
    if service.query_opt(sql, &[]).unwrap().is_some() {
        cluster.set("output_plugin_libraries", "wal2json, test_decoding");
    }
    // Few distributions have the other plugin for each version.
    let mut plugins = vec!["test_decoding"];
    if has_module("wal2json") {
        plugins.push("wal2json");
    } else {
        report("no wal2json here: only test_decoding is searched for tokens");
    }
    for plugin in &plugins {
        let sql = "SELECT pg_create_logical_replication_slot($1::text::name, $2::text::name)";
        service.query_one(sql, &[plugin, plugin]).unwrap();
    }
    let mut listener = database.listen();
    let mut client = database.client_for(Uuid::new_v4());
    let traces = Traces::leave(&mut service, &mut client);
    let control = format!("SELECT presence.start_session(user_key => '{CONTROL}') AS \"{CONTROL}\"");
    service.batch_execute(&control).unwrap();
    let sql = "SELECT presence.presence_id($1::text)";
    let user: Uuid = service.query_one(sql, &[&CONTROL]).unwrap().get(0);
    listener.wait_for(user, &["active"]);
    assert!(!traces.errors.is_empty());
    traces.assert_not_in("an error", &format!("{} {CONTROL}", traces.errors));

    traces.assert_not_in("a notification", &listener.payloads.concat());
    assert!(!listener.payloads.concat().contains("sha256:"), "a digest was sent");
    // The client's last statement had a token; the control is in this one.
    let activity = format!("SELECT *, '{CONTROL}' FROM pg_stat_activity");
    traces.assert_not_in("pg_stat_activity", &all(&mut service, &activity));
    traces.assert_not_in(
        "pg_stat_statements",
        &all(&mut service, "SELECT * FROM pg_stat_statements"),
    );
    for table in ["user_sessions", "user_presence", "presence_changes"] {
        let sql = format!("SELECT * FROM presence.{table}");
        traces.assert_not_in(table, &all(&mut service, &sql));
    }
    for plugin in plugins {
        let sql = format!("SELECT data FROM pg_logical_slot_get_changes('{plugin}', NULL, NULL)");
        traces.assert_not_in(plugin, &all(&mut service, &sql));
    }
    for format in ["--format=plain", "--format=custom"] {
        traces.assert_not_in(format, &dump(&database, format));
    }
    traces.assert_not_in("the log", &cluster.log());

    drop((service, client, listener));
    database.run("CHECKPOINT");
    // So that whatever is in memory, including the roster, has had every chance to be written.
    cluster.stop(Shutdown::Fast);
    let found = cluster.files_with(CONTROL);
    for place in ["/base/", "/pg_wal/", "/log"] {
        assert!(found.contains(place), "the control is not in {place}: {found}");
    }
    for token in &traces.tokens {
        assert_eq!(cluster.files_with(token), "");
    }
    cluster.start();
}

#[test]
fn without_the_settings_of_the_readme_the_server_itself_logs_tokens() {
    let mut settings = vec![
        [("log_statement", "all"), ("auto_explain.log_verbose", "off")],
        [("log_parameter_max_length", "0"), ("auto_explain.log_verbose", "on")],
    ];
    if server_major() >= 16 {
        settings.push([
            ("log_parameter_max_length", "0"),
            ("auto_explain.log_parameter_max_length", "-1"),
        ]);
    }
    for settings in settings {
        let cluster = verbose_server();
        cluster.configure(&[("log_parameter_max_length", "-1")]);
        cluster.configure(&settings);
        cluster.restart(Shutdown::Fast);
        let token = "a token that PostgreSQL writes to its log";
        cluster.database().connect().beat_by_token(token);
        assert!(
            cluster.log().contains(token),
            "the README need not recommend these settings"
        );
    }
}
