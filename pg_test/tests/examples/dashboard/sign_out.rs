//! Signing out, here and everywhere.

use pg_presence_test::{Cluster, Database, Presence};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{AMARA, BEN, Dashboard, set_up};

fn sign_out(dashboard: &Dashboard, cookie: &str, body: &Value) {
    let answer = dashboard.post("/api/logout", cookie, body);
    assert_eq!(answer.status(), 200);
    let set_cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(set_cookie.contains("Max-Age=0"), "{set_cookie}");
}

fn assert_is_signed_out(dashboard: &Dashboard, cookie: &str) {
    let answer = dashboard.post("/rpc/start_session", cookie, &json!({}));
    assert_eq!(answer.status(), 401);
}

fn is_online(database: &Database, user: &str) -> bool {
    database.connect().is_online(Uuid::parse_str(user).unwrap())
}

#[test]
fn signing_out_ends_the_login_its_session_and_its_streams() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let dashboard = Dashboard::start(&database);
    let (cookie, other) = (dashboard.sign_in(AMARA), dashboard.sign_in(AMARA));
    let session = dashboard.start_session(&cookie);
    let (stream, other_stream) = (dashboard.stream(&cookie), dashboard.stream(&other));
    sign_out(
        &dashboard,
        &cookie,
        &json!({ "session_token": session["session_token"] }),
    );
    assert!(!is_online(&database, AMARA));
    assert_is_signed_out(&dashboard, &cookie);
    stream.wait_for("the reason", |name, _| name == "signed_out");
    stream.wait_until_ended();
    // The other login and its stream go on.
    dashboard.start_session(&other);
    other_stream.wait_until_shown("the other session", |users| users[AMARA]["is_online"] == true);
    assert!(!other_stream.has_ended());
}

#[test]
fn signing_out_everywhere_ends_every_login_session_and_stream_of_the_user() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let dashboard = Dashboard::start(&database);
    let cookies = [dashboard.sign_in(AMARA), dashboard.sign_in(AMARA)];
    for cookie in &cookies {
        dashboard.start_session(cookie);
    }
    let streams = cookies.each_ref().map(|cookie| dashboard.stream(cookie));
    let ben = dashboard.sign_in(BEN);
    let bens_stream = dashboard.stream(&ben);
    sign_out(&dashboard, &cookies[0], &json!({ "everywhere": true }));
    assert!(!is_online(&database, AMARA));
    for (cookie, stream) in cookies.iter().zip(&streams) {
        assert_is_signed_out(&dashboard, cookie);
        stream.wait_until_ended();
    }
    dashboard.start_session(&ben);
    bens_stream.wait_until_shown("Ben", |users| users[BEN]["is_online"] == true);
    assert!(!bens_stream.has_ended());
}

#[test]
fn a_fault_of_presence_does_not_keep_anybody_signed_in() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let dashboard = Dashboard::start(&database);
    let (cookie, other) = (dashboard.sign_in(AMARA), dashboard.sign_in(AMARA));
    let session = dashboard.start_session(&cookie);
    database.run("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA presence FROM anon, authenticated");
    sign_out(
        &dashboard,
        &cookie,
        &json!({ "session_token": session["session_token"] }),
    );
    sign_out(&dashboard, &other, &json!({ "everywhere": true }));
    database.run("SELECT presence.grant_client('authenticated')");
    assert_is_signed_out(&dashboard, &cookie);
    assert_is_signed_out(&dashboard, &other);
    assert!(is_online(&database, AMARA));
}

#[test]
fn a_user_who_is_removed_is_signed_out() {
    let cluster = Cluster::private(&[]);
    let database = set_up(&cluster);
    let dashboard = Dashboard::start(&database);
    let cookie = dashboard.sign_in(AMARA);
    let stream = dashboard.stream(&cookie);
    database.run(&format!("DELETE FROM app.users WHERE id = '{AMARA}'"));
    stream.wait_until_ended();
    assert_is_signed_out(&dashboard, &cookie);
}
