//! Whoever is slow, refused or many costs others nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use pg_presence_test::{Cluster, Database, patience};
use serde_json::json;

use super::{AMARA, Dashboard, agent, program, set_up};

/// The processes of the dashboard's pool.
fn pool(database: &Database) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dashboard'";
    let rows = database.connect().query(sql, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_request_that_is_refused_costs_no_connection_to_the_database() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let dashboard = Dashboard::start(&database);
    let cookie = dashboard.sign_in(AMARA);
    let before = pool(&database);
    for _ in 0..10 {
        let invalid = dashboard.post("/rpc/heartbeat", &cookie, &json!({ "session_id": "nothing" }));
        assert_eq!(invalid.status(), 400);
        let unknown = dashboard.post("/rpc/start_session", "presence_login=nobody", &json!({}));
        assert_eq!(unknown.status(), 401);
        let refused = dashboard.post("/rpc/start_session", &cookie, &json!({ "session_token": "weak" }));
        assert_eq!(refused.status(), 400);
    }
    let after = pool(&database);
    assert!(before.iter().all(|pid| after.contains(pid)), "{before:?} {after:?}");
}

/// Sends part of a request, and returns what is answered until the connection is closed.
fn send_part(dashboard: &Dashboard, part: &str) -> String {
    let mut socket = TcpStream::connect(dashboard.url.trim_start_matches("http://")).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    socket.write_all(part.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("the connection to be closed");
    answer
}

#[test]
fn requests_that_are_never_completed_are_given_up() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let dashboard = Dashboard::start(&database);
    let headers = "POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    send_part(&dashboard, "");
    send_part(&dashboard, headers);
    let answer = send_part(&dashboard, &format!("{headers}Content-Length: 100\r\n\r\n{{"));
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn neither_streams_nor_idle_connections_keep_others_out() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let url = format!(
        "host={} user=dashboard dbname={}",
        cluster.socket_directory().display(),
        database.name
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 96 && exec \"$0\"", program()]);
    let dashboard = Dashboard::run(shell.env("DATABASE_URL", url));
    let cookie = dashboard.sign_in(AMARA);
    let session = dashboard.start_session(&cookie);
    let agent = agent();
    let mut streams = Vec::new();
    // More than there are file descriptors.
    let refused = (0..100).find_map(|_| {
        let stream = agent.get(format!("{}/api/events", dashboard.url));
        let stream = stream.header("Cookie", &cookie).call().expect("an answer");
        if stream.status() == 200 {
            streams.push(stream);
            return None;
        }
        Some(stream)
    });
    let refused = refused.expect("a stream that is refused");
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(dashboard.heartbeat(&cookie, &session).status(), 200);
    let address = dashboard.url.trim_start_matches("http://");
    // More than have a place. Those that do are closed after a while.
    let idle: Vec<_> = (0..30).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(dashboard.heartbeat(&cookie, &session).status(), 200);
    drop((idle, streams));
}

#[test]
fn behind_https_the_cookie_is_bound_to_the_host_and_nothing_is_cached() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let dashboard = Dashboard::start(&database);
    let request = agent().post(format!("{}/api/login", dashboard.url));
    let request = request.header("X-Forwarded-Proto", "https");
    let body = json!({ "user_id": AMARA }).to_string();
    let answer = request.content_type("application/json").send(&body).unwrap();
    let set_cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(set_cookie.starts_with("__Host-presence_login="), "{set_cookie}");
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(set_cookie.split("; ").any(|part| part == attribute), "{set_cookie}");
    }
    assert_eq!(answer.headers()["cache-control"], "no-store");
    // A cookie that plain HTTP, or another host, could have set does not count.
    let (name, value) = set_cookie.split(';').next().unwrap().split_once('=').unwrap();
    for (name, status) in [(name, 200), ("presence_login", 401)] {
        let request = agent().post(format!("{}/rpc/start_session", dashboard.url));
        let request = request
            .header("X-Forwarded-Proto", "https")
            .content_type("application/json");
        let answer = request.header("Cookie", format!("{name}={value}")).send("{}").unwrap();
        assert_eq!(answer.status(), status, "{name}");
    }
}
