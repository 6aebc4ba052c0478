//! Tokens cannot be guessed. That they are written nowhere is tested in `tests/roles/token_leaks.rs`.

use std::collections::HashSet;

use pg_presence_test::Cluster;

#[test]
fn tokens_are_random() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let sql =
        "SELECT (presence.start_session(user_id => gen_random_uuid())).session_token FROM generate_series(1, 1000)";
    let tokens: HashSet<String> = service.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(tokens.len(), 1000);
    // Each of the 43 places has many of the 64 characters; the last one has only four bits.
    for place in 0..43 {
        let used: HashSet<u8> = tokens.iter().map(|token| token.as_bytes()[place]).collect();
        assert!(
            used.len() >= if place < 42 { 60 } else { 16 },
            "place {place} has {} characters",
            used.len()
        );
    }
}
