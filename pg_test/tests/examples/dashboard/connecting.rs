//! How the dashboard connects to the database: through a pooler, and as its connection string says.

use std::fs;
use std::path::PathBuf;
use std::thread;

use pg_presence_test::{Cluster, Database, Pooler};
use serde_json::json;

use super::{AMARA, BEN, Dashboard, agent, set_up};

#[test]
fn it_works_through_a_pooler() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let pooler = Pooler::new(&cluster, 2, &["dashboard"]);
    let name = &database.name;
    let (pooled, direct) = (pooler.socket_directory(), cluster.socket_directory());
    let dashboard = Dashboard::start_at(
        &format!("host={} port=6432 user=dashboard dbname={name}", pooled.display()),
        &[(
            "DIRECT_URL",
            &format!("host={} user=dashboard dbname={name}", direct.display()),
        )],
    );
    // At once, so that they share the pooler's connections.
    let cookies: Vec<_> = thread::scope(|scope| {
        let visits = [AMARA, BEN, AMARA, BEN].map(|user| {
            let dashboard = &dashboard;
            scope.spawn(move || {
                let cookie = dashboard.sign_in(user);
                let session = dashboard.start_session(&cookie);
                for _ in 0..10 {
                    assert_eq!(dashboard.heartbeat(&cookie, &session).status(), 200);
                }
                cookie
            })
        });
        visits.map(|visit| visit.join().expect("a visit")).into()
    });
    let stream = dashboard.stream(&cookies[0]);
    stream.wait_until_shown("both", |users| {
        [AMARA, BEN].iter().all(|user| users[*user]["is_online"] == true)
    });
    let out = dashboard.post("/api/logout", &cookies[1], &json!({ "everywhere": true }));
    assert_eq!(out.status(), 200);
    stream.wait_until_shown("Amara alone", |users| users[BEN]["is_online"] == false);
}

#[test]
fn it_keeps_the_options_of_its_connection_string() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let options = "options='-c default_transaction_read_only=on'";
    let url = format!("host={} {options}", cluster.socket_directory().display());
    let dashboard = Dashboard::start_with(&database, &url);
    // Reads work, and nothing else does.
    let users = agent().get(format!("{}/api/users", dashboard.url)).call().unwrap();
    assert_eq!(users.status(), 200);
    let login = dashboard.post("/api/login", "", &json!({ "user_id": AMARA }));
    assert_eq!(login.status(), 500);
}

/// Has the server encrypt with a certificate that it makes for this address. Returns the certificate.
fn encrypt(cluster: &Cluster, database: &Database, address: &str) -> PathBuf {
    let names = format!("-addext subjectAltName=IP:{address} -addext basicConstraints=critical,CA:FALSE");
    let files = "-keyout server.key -out server.crt 2>/dev/null && chmod 600 server.key";
    let program = format!("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=test {names} {files}");
    // As the servers' user, in the data directory.
    database.run(&format!("COPY (SELECT 1) TO PROGRAM '{program}'"));
    let rules = cluster.data().join("pg_hba.conf");
    let mut text = fs::read_to_string(&rules).unwrap();
    text.insert_str(0, "hostssl all all 127.0.0.0/8 trust\n");
    fs::write(rules, text).unwrap();
    cluster.set("ssl", "on");
    let copy = cluster.socket_directory().join("server.crt");
    fs::copy(cluster.data().join("server.crt"), &copy).unwrap();
    copy
}

#[test]
fn it_encrypts_where_that_is_required_and_verifies_the_certificate() {
    // An address of this machine that no other test has, so that the port is free.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let address = format!("127.{}.{middle}.{low}", 64 + high);
    let cluster = Cluster::private(&[("listen_addresses", &address)]);
    let database = set_up(&cluster);
    let certificate = encrypt(&cluster, &database, &address);
    let url = format!("host={address} sslmode=require user=dashboard dbname={}", database.name);
    let users = |dashboard: &Dashboard| {
        let users = agent().get(format!("{}/api/users", dashboard.url));
        users.call().unwrap().status()
    };
    let distrustful = Dashboard::start_at(&url, &[]);
    assert_eq!(users(&distrustful), 503);
    distrustful.running.wait_for(|line| line.contains("UnknownIssuer"));
    drop(distrustful);
    let trusting = Dashboard::start_at(&url, &[("SSL_CERT_FILE", certificate.to_str().unwrap())]);
    assert_eq!(users(&trusting), 200);
    trusting.stream(&trusting.sign_in(AMARA));
    let sql = "SELECT bool_and(ssl) AND count(*) > 1 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
               WHERE usename = 'dashboard'";
    let encrypted = database.connect().query_one(sql, &[]).unwrap();
    assert!(encrypted.get::<_, bool>(0));
}

#[test]
fn it_does_not_connect_without_the_encryption_that_is_required() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let url = format!("host={} sslmode=require", cluster.socket_directory().display());
    let dashboard = Dashboard::start_with(&database, &url);
    let users = agent().get(format!("{}/api/users", dashboard.url)).call().unwrap();
    assert_eq!(users.status(), 503);
    dashboard.running.wait_for(|line| line.contains("TLS"));
}
