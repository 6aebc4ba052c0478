//! Random metadata and channel names: input that PostgreSQL parses and the extension validates.

use std::time::Duration;

use fallible_iterator::FallibleIterator;
use pg_presence_test::{Cluster, Presence, Rng, error_of, report, times, wait_until};
use postgres::error::SqlState;
use serde_json::{Map, Value, json};
use uuid::Uuid;

const TEXTS: &[&str] = &[
    "",
    "a",
    "é",
    "🟢",
    "\u{1}",
    "\"\\/",
    "sub",
    "{}",
    "\u{2028}",
    "𝄞 and more of it",
];

/// Returns a random text: usually short, now and then too long for any column.
fn text(rng: &mut Rng) -> String {
    let times = if rng.below(20) == 0 {
        rng.below(4000)
    } else {
        rng.below(4)
    };
    (0..times).map(|_| *rng.pick(TEXTS)).collect()
}

/// Returns random JSON of random depth.
fn random_json(rng: &mut Rng) -> Value {
    match rng.below(9) {
        0 => Value::Null,
        1 => json!(rng.below(2) == 0),
        2 => json!(rng.next_u64() as i64),
        3 => json!(rng.next_u64() as f64 / 1e9),
        4 => json!((0..rng.below(5)).map(|_| random_json(rng)).collect::<Vec<_>>()),
        5..=7 => {
            let entries = (0..rng.below(5)).map(|_| (text(rng), random_json(rng)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        _ => json!(text(rng)),
    }
}

#[test]
fn metadata_is_stored_as_given_or_refused() {
    let database = Cluster::shared().database();
    let mut client = database.client_for(Uuid::new_v4());
    let mut rng = Rng::new(7);
    let count = times(2_000, 200_000);
    let mut stored = 0;
    let start = client
        .prepare("SELECT session_id FROM presence.start_session(metadata => $1)")
        .unwrap();
    let validity = "SELECT jsonb_typeof($1) = 'object', pg_column_size($1) <= 8192";
    let validity = client.prepare(validity).unwrap();
    for _ in 0..count {
        let given = random_json(&mut rng);
        let valid = client.query_one(&validity, &[&given]).unwrap();
        let fits = valid.get::<_, bool>(0) && valid.get::<_, bool>(1);
        match client.query_one(&start, &[&given]) {
            Ok(row) => {
                let id: Uuid = row.get(0);
                let sql = "SELECT metadata = $2 FROM presence.user_sessions WHERE id = $1";
                let same: bool = client.query_one(sql, &[&id, &given]).unwrap().get(0);
                assert!(same && fits, "{given}");
                assert!(client.end(id));
                stored += 1;
            }
            Err(error) => {
                let error = error_of(Err::<(), _>(error));
                assert_eq!(error.code(), &SqlState::INVALID_PARAMETER_VALUE, "{given}");
                assert!(!fits, "{given}: {error:?}");
            }
        }
    }
    report(&format!("{count} random metadata, {stored} of them stored"));
    assert!(stored > count / 10 && stored < count);
}

#[test]
fn a_channel_may_have_any_name_of_63_bytes() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let worker = database.worker();
    let mut service = database.connect();
    let mut rng = Rng::new(7);
    let names = times(15, 2_000);
    for _ in 0..names {
        // Printable ASCII; a configuration file cannot have a NUL or a line end in a value.
        let length = 1 + rng.below(63);
        let name: String = (0..length).map(|_| char::from(b' ' + rng.below(95) as u8)).collect();
        cluster.set("presence.channel", &name.replace('\\', "\\\\"));
        let mut client = database.connect();
        let shown: String = client.query_one("SHOW presence.channel", &[]).unwrap().get(0);
        assert_eq!(shown, name);
        client
            .batch_execute(&format!("LISTEN \"{}\"", name.replace('"', "\"\"")))
            .unwrap();
        // The worker reloads its settings at some time, so there have to be changes until then.
        wait_until(&format!("a notification on {name}"), || {
            service.start(Uuid::new_v4());
            let mut notifications = client.notifications();
            let notification = notifications.timeout_iter(Duration::from_millis(50)).next().unwrap();
            notification.is_some_and(|notification| notification.channel() == name)
        });
    }
    report(&format!("{names} random channel names"));
    assert_eq!(database.worker(), worker);
}
