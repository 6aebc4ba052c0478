//! Claims of every shape, and whether they leak to the next user of a pooled connection.

use pg_presence_test::{Cluster, Presence};
use postgres::Client;
use uuid::Uuid;

fn identity(client: &mut Client) -> Option<Uuid> {
    let sql = "SELECT presence.presence_auth_id()";
    client.query_one(sql, &[]).expect("an answer").get(0)
}

#[test]
fn claims_of_any_shape_are_read_as_jsonb_would_or_name_nobody() {
    let database = Cluster::shared().database();
    let mut client = database.connect_as(&database.client());
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let upper = me.to_string().to_uppercase();
    let megabyte = "x".repeat(1 << 20);
    let deep = 200_000;
    for (claims, named) in [
        (format!(r#"{{"sub":"{upper}"}}"#), Some(me)),
        (format!(r#"{{"sub":"{}"}}"#, me.simple()), Some(me)),
        (format!(r#"{{"sub":"{}"}}"#, me.braced()), Some(me)),
        (format!(r#" {{ "a" : "{megabyte}" , "sub" : "{me}" }} "#), Some(me)),
        (format!(r#"{{"sub":"{other}","sub":"{me}"}}"#), Some(me)),
        (format!(r#"{{"sub":"{other}","s\u0075b":"{me}"}}"#), Some(me)),
        (format!(r#"{{"sub":"{other}","sub":null}}"#), None),
        (format!(r#"{{"sub":"{other}","sub":["{other}"]}}"#), None),
        (format!(r#"{{"sub":"{me}\u0000"}}"#), None),
        (format!(r#"{{"\u0000":"{me}"}}"#), None),
        (format!(r#"{{"sub":"{me} "}}"#), None),
        (format!(r#"{{"sub":"urn:uuid:{me}"}}"#), None),
        (format!(r#"{{"SUB":"{me}"}}"#), None),
        (format!(r#"{{"sub":{{"sub":"{me}"}}}}"#), None),
        (format!(r#"["sub","{me}"]"#), None),
        (format!(r#""{me}""#), None),
        (format!("{me}"), None),
        (format!(r#"{{"sub":"{megabyte}"}}"#), None),
        (megabyte.clone(), None),
        (r#"{"sub":1e400}"#.to_owned(), None),
        (r#"{"sub":-1}"#.to_owned(), None),
        (
            format!("{{\"a\":{}{},\"sub\":7}}", "[".repeat(deep), "]".repeat(deep)),
            None,
        ),
        ("{\"a\":".repeat(deep), None),
        (" ".to_owned(), None),
        ("null".to_owned(), None),
    ] {
        client.claim(&claims);
        let shown = &claims[..claims.len().min(80)];
        assert_eq!(identity(&mut client), named, "{shown}");
        let sql = "SELECT count(*) FROM presence.user_sessions";
        let own = client.query_one(sql, &[]).unwrap().get::<_, i64>(0);
        let before = own;
        match client.query("SELECT presence.start_session()", &[]) {
            Ok(_) => assert!(named.is_some(), "{shown}"),
            Err(error) => assert!(named.is_none(), "{shown}: {error:?}"),
        }
        let own: i64 = client.query_one(sql, &[]).unwrap().get(0);
        assert_eq!(own, before + i64::from(named.is_some()), "{shown}");
    }
}

#[test]
fn a_pooled_connection_acts_for_the_last_identity_set_and_for_nobody_after_a_reset() {
    let database = Cluster::shared().database();
    let (last, next) = (Uuid::new_v4(), Uuid::new_v4());
    let mut client = database.client_for(last);
    let theirs = client.start_own().id;

    // A gateway that sets the claims for each transaction is not affected by claims left for the session.
    let mut request = client.transaction().unwrap();
    let local = format!(r#"SET LOCAL request.jwt.claims = '{{"sub":"{next}"}}'"#);
    request.batch_execute(&local).unwrap();
    assert_eq!(request.beat(theirs), "unknown");
    let own = request.start_own().id;
    assert_eq!(request.beat(own), "ok");
    request.commit().unwrap();
    // PostgreSQL restores the setting of the session, which is why the README requires SET LOCAL.
    assert_eq!(identity(&mut client), Some(last));

    // Claims that name nobody take precedence over the other setting.
    client
        .batch_execute(&format!("SET presence.user_id = '{last}'"))
        .unwrap();
    let mut request = client.transaction().unwrap();
    request.batch_execute("SET LOCAL request.jwt.claims = '{}'").unwrap();
    assert_eq!(request.beat(theirs), "unknown");
    request.commit().unwrap();

    for reset in ["RESET ALL", "DISCARD ALL"] {
        client.act_for(last);
        client
            .batch_execute(&format!("SET presence.user_id = '{last}'"))
            .unwrap();
        client.batch_execute(reset).unwrap();
        assert_eq!(identity(&mut client), None, "{reset}");
        assert_eq!(client.beat(theirs), "unknown", "{reset}");
    }
}

#[test]
fn a_prepared_statement_has_the_privileges_of_the_role_that_runs_it() {
    let database = Cluster::shared().database();
    let gateway = database.role("gateway");
    let (holder, client_role, service) = (database.holder(), database.client(), database.service());
    database.run(&format!(
        "ALTER ROLE {gateway} NOINHERIT; GRANT {holder}, {client_role}, {service} TO {gateway}"
    ));
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let session = database.connect().start(other);
    let mut client = database.connect_as(&gateway);
    client.act_for(me);
    client.batch_execute(&format!("SET ROLE {service}")).unwrap();
    let beat = client.prepare("SELECT presence.heartbeat($1)").unwrap();
    let online = client.prepare("SELECT presence.is_online($1)").unwrap();
    let rows = client.prepare("SELECT count(*) FROM presence.user_sessions").unwrap();
    // More executions than PostgreSQL needs to switch to a generic plan.
    for _ in 0..8 {
        for role in [&service, &client_role, &holder, &gateway] {
            client.batch_execute(&format!("SET ROLE {role}")).unwrap();
            let beat = client.query_one(&beat, &[&session.id]).ok();
            let online = client.query_one(&online, &[&other]).ok();
            let rows = client.query_one(&rows, &[]).ok();
            let beat = beat.map(|row| row.get::<_, String>(0));
            let online = online.map(|row| row.get::<_, bool>(0));
            let rows = rows.map(|row| row.get::<_, i64>(0));
            let expected = match role {
                role if *role == service => (Some("ok"), Some(true), Some(1)),
                role if *role == client_role => (Some("unknown"), None, Some(0)),
                _ => (None, None, None),
            };
            assert_eq!((beat.as_deref(), online, rows), expected, "{role}");
        }
    }
}
