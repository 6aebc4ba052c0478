//! Tokens: known to who was given one, and to nobody and nothing else.

use std::collections::HashSet;

use pg_presence_test::{Cluster, Presence, Shutdown};
use uuid::Uuid;

#[test]
fn a_token_is_nowhere_in_clear() {
    let cluster = Cluster::own(&[
        ("shared_preload_libraries", "pg_presence,pg_stat_statements"),
        ("log_min_messages", "debug1"),
        ("log_min_duration_statement", "0"),
        ("log_parameter_max_length", "0"),
        ("log_parameter_max_length_on_error", "0"),
    ]);
    let database = cluster.database();
    let mut service = database.connect();
    service
        .batch_execute("CREATE EXTENSION pg_stat_statements")
        .unwrap();
    let mut listener = database.listen();
    let users: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    let mut tokens: Vec<String> = Vec::new();
    for user in &users {
        let session = service.start(*user);
        assert_eq!(service.beat_by_token(&session.token), "ok");
        let again =
            "SELECT session_id FROM presence.start_session(user_id => $1, session_token => $2)";
        service.query_one(again, &[user, &session.token]).unwrap();
        let _ = service.execute(again, &[&Uuid::new_v4(), &session.token]);
        let rotate = "SELECT presence.rotate_session_token($1)";
        tokens.push(service.query_one(rotate, &[&session.id]).unwrap().get(0));
        tokens.push(session.token);
        listener.wait_for(*user, &["active"]);
    }
    for payload in &listener.payloads {
        assert!(tokens.iter().all(|token| !payload.contains(token.as_str())));
        assert!(!payload.contains("sha256:"), "nor its digest: {payload}");
    }
    let sql = "SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%' || $1 || '%'";
    for token in &tokens {
        assert_eq!(
            service.query_one(sql, &[token]).unwrap().get::<_, i64>(0),
            0
        );
    }
    let sql = "SELECT presence.start_session(user_key => 'a key to be found')";
    service.batch_execute(sql).unwrap();
    service.batch_execute("CHECKPOINT").unwrap();
    drop((service, listener));
    // So that what is in memory, the roster's too, has had every occasion to be written.
    cluster.stop(Shutdown::Fast);
    assert_ne!(cluster.files_with("a key to be found"), "");
    for token in &tokens {
        assert_eq!(cluster.files_with(token), "");
    }
    cluster.start();
}

#[test]
fn tokens_are_random() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let sql = "SELECT (presence.start_session(user_id => gen_random_uuid())).session_token FROM generate_series(1, 1000)";
    let tokens: HashSet<String> = service
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(tokens.len(), 1000);
    // Each of the 43 places takes many of the 64 characters; the last has four bits only.
    for place in 0..43 {
        let used: HashSet<u8> = tokens.iter().map(|token| token.as_bytes()[place]).collect();
        assert!(
            used.len() >= if place < 42 { 60 } else { 16 },
            "place {place} takes {} characters",
            used.len()
        );
    }
}
