//! Random metadata and channel names: what PostgreSQL parses for us, and we judge.

use std::time::Duration;

use fallible_iterator::FallibleIterator;
use pg_presence_test::{Cluster, Dice, Presence, figure, refusal, soak, wait_until};
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

/// A text of chance: short mostly, and now and then too long for anything.
fn text(dice: &mut Dice) -> String {
    let times = if dice.roll(20) == 0 {
        dice.roll(4000)
    } else {
        dice.roll(4)
    };
    (0..times).map(|_| *dice.pick(TEXTS)).collect()
}

/// JSON of chance, deeper the more often it is lucky.
fn anything(dice: &mut Dice) -> Value {
    match dice.roll(9) {
        0 => Value::Null,
        1 => json!(dice.roll(2) == 0),
        2 => json!(dice.number() as i64),
        3 => json!(dice.number() as f64 / 1e9),
        4 => json!(
            (0..dice.roll(5))
                .map(|_| anything(dice))
                .collect::<Vec<_>>()
        ),
        5..=7 => {
            let entries = (0..dice.roll(5)).map(|_| (text(dice), anything(dice)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        _ => json!(text(dice)),
    }
}

#[test]
fn metadata_is_kept_as_it_is_given_or_refused() {
    let database = Cluster::shared().database();
    let mut client = database.client_for(Uuid::new_v4());
    let mut dice = Dice::new(7);
    let count = if soak() { 200_000 } else { 2_000 };
    let mut kept = 0;
    let start = client
        .prepare("SELECT session_id FROM presence.start_session(metadata => $1)")
        .unwrap();
    let judge = "SELECT jsonb_typeof($1) = 'object', pg_column_size($1) <= 8192";
    let judge = client.prepare(judge).unwrap();
    for _ in 0..count {
        let given = anything(&mut dice);
        let judged = client.query_one(&judge, &[&given]).unwrap();
        let fits = judged.get::<_, bool>(0) && judged.get::<_, bool>(1);
        match client.query_one(&start, &[&given]) {
            Ok(row) => {
                let id: Uuid = row.get(0);
                let sql = "SELECT metadata = $2 FROM presence.user_sessions WHERE id = $1";
                let same: bool = client.query_one(sql, &[&id, &given]).unwrap().get(0);
                assert!(same && fits, "{given}");
                assert!(client.end(id));
                kept += 1;
            }
            Err(error) => {
                let error = refusal(Err::<(), _>(error));
                assert_eq!(error.code(), &SqlState::INVALID_PARAMETER_VALUE, "{given}");
                assert!(!fits, "{given}: {error:?}");
            }
        }
    }
    figure(&format!("{count} random metadata, {kept} of them kept"));
    assert!(kept > count / 10 && kept < count);
}

#[test]
fn a_channel_may_have_any_name_of_63_bytes() {
    let cluster = Cluster::own(&[]);
    let database = cluster.database();
    let worker = database.worker();
    let mut service = database.connect();
    let mut dice = Dice::new(7);
    let names = if soak() { 2_000 } else { 15 };
    for _ in 0..names {
        // Anything that can be typed; a NUL or a line's end has no place in a configuration file.
        let length = 1 + dice.roll(63);
        let name: String = (0..length)
            .map(|_| char::from(b' ' + dice.roll(95) as u8))
            .collect();
        cluster.set("presence.channel", &name.replace('\\', "\\\\"));
        let mut client = database.connect();
        let shown: String = client
            .query_one("SHOW presence.channel", &[])
            .unwrap()
            .get(0);
        assert_eq!(shown, name);
        client
            .batch_execute(&format!("LISTEN \"{}\"", name.replace('"', "\"\"")))
            .unwrap();
        // The worker reads its settings when it gets to it, so there has to be something to tell by then.
        wait_until(&format!("a notification on {name}"), || {
            service.start(Uuid::new_v4());
            let mut notifications = client.notifications();
            let told = notifications
                .timeout_iter(Duration::from_millis(50))
                .next()
                .unwrap();
            told.is_some_and(|notification| notification.channel() == name)
        });
    }
    figure(&format!("{names} random names of a channel"));
    assert_eq!(database.worker(), worker);
}
