//! Random calls: every function, and plain SQL, with random values of the arguments' types.

use std::collections::BTreeMap;
use std::thread;

use pg_presence_test::{Cluster, Database, Presence, Rng, report, seed, times};
use postgres::Client;
use postgres::error::SqlState;
use uuid::Uuid;

use crate::random_values::{Known, value};

/// Transaction commands and settings between the calls.
#[rustfmt::skip]
const OTHER_COMMANDS: &[&str] = &[
    "BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s",
    "BEGIN READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "SET request.jwt.claims = ''", "SET request.jwt.claims = '{'", "SET request.jwt.claims = '{\"sub\":7}'",
    "SET LOCAL request.jwt.claims = '{\"sub\":\"x\",\"sub\":[]}'", "RESET request.jwt.claims",
    "SET presence.user_id = '3dfd2b5a-6d2b-4cc4-a1b3-2b1f5b9f7e10'", "RESET presence.user_id",
    "SET search_path = ''", "SET search_path = presence", "DISCARD PLANS", "DISCARD ALL",
    "SET plan_cache_mode = force_generic_plan", "SET array_nulls = off", "SET IntervalStyle = iso_8601",
    "SET statement_timeout = '3ms'", "SET statement_timeout = 0", "RESET ALL",
    "PREPARE TRANSACTION 'never'",
];

/// A function: its name, and the names and types of its arguments.
struct Function {
    name: String,
    arguments: Vec<(String, String)>,
}

fn functions(service: &mut Client) -> Vec<Function> {
    let sql = "SELECT p.proname::text, coalesce(p.proargnames[:p.pronargs], '{}'),
                      ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) t)
                 FROM pg_proc p WHERE p.pronamespace = 'presence'::regnamespace ORDER BY p.oid::regprocedure::text";
    let rows = service.query(sql, &[]).unwrap();
    rows.iter()
        .map(|row| {
            let (names, types): (Vec<String>, Vec<String>) = (row.get(1), row.get(2));
            Function {
                name: row.get(0),
                arguments: names.into_iter().zip(types).collect(),
            }
        })
        .collect()
}

/// The columns of user_sessions and their types.
#[rustfmt::skip]
const COLUMNS: &[(&str, &str)] = &[
    ("id", "uuid"), ("user_id", "uuid"), ("auth_id", "uuid"), ("session_token", "text"), ("is_active", "boolean"),
    ("last_activity", "timestamp with time zone"), ("created_at", "timestamp with time zone"),
    ("expires_at", "timestamp with time zone"), ("metadata", "jsonb"), ("ended_at", "timestamp with time zone"),
    ("user_key", "text"),
];

/// Returns the next random statement.
fn statement(rng: &mut Rng, functions: &[Function], known: &Known) -> String {
    if rng.below(8) == 0 {
        return (*rng.pick(OTHER_COMMANDS)).to_owned();
    }
    if rng.below(8) == 0 {
        let columns: Vec<_> = COLUMNS.iter().filter(|_| rng.below(3) == 0).collect();
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let values: Vec<String> = columns.iter().map(|(_, kind)| value(rng, kind, known)).collect();
        if !names.is_empty() {
            let (names, values) = (names.join(", "), values.join(", "));
            return match rng.below(3) {
                0 => format!("INSERT INTO presence.user_sessions ({names}) VALUES ({values}) ON CONFLICT DO NOTHING"),
                1 => format!("INSERT INTO presence.user_sessions ({names}) VALUES ({values}) RETURNING *"),
                _ => format!(
                    "UPDATE presence.user_sessions SET ({names}) = ROW ({values}) WHERE id = {}",
                    value(rng, "uuid", known)
                ),
            };
        }
    }
    let function = rng.pick(functions);
    // Arguments by position, or by name with some omitted.
    let by_name = rng.below(2) == 0;
    let arguments: Vec<String> = function
        .arguments
        .iter()
        .filter_map(|(name, kind)| match by_name {
            true if rng.below(4) == 0 => None,
            true => Some(format!("{name} => {}", value(rng, kind, known))),
            false => Some(value(rng, kind, known)),
        })
        .collect();
    let call = format!("presence.{}({})", function.name, arguments.join(", "));
    if rng.below(2) == 0 {
        format!("SELECT {call}")
    } else {
        format!("SELECT * FROM {call}")
    }
}

/// Whether a caller of random SQL may get this SQLSTATE, from the extension or from PostgreSQL.
fn is_expected(code: &str) -> bool {
    const CLASSES: [&str; 7] = ["0A", "22", "23", "25", "3B", "40", "42"];
    const CODES: [&str; 5] = ["53400", "57014", "72000", "54000", "55000"];
    CLASSES.contains(&&code[..2]) || CODES.contains(&code)
}

/// Cleans up after a call, repeatedly, as a timeout that a call has set may cancel this too.
fn clean_up(client: &mut Client, sql: &str) {
    while let Err(error) = client.batch_execute(sql) {
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");
    }
}

/// Makes this many calls as a role, and counts the results by SQLSTATE.
fn call(database: &Database, role: &str, functions: &[Function], seed: u64, calls: u64) -> BTreeMap<String, u64> {
    let mut answers = BTreeMap::new();
    let mut rng = Rng::new(seed);
    let mut service = database.connect();
    let users = [Uuid::new_v4(), Uuid::new_v4()];
    let new_known = |service: &mut Client| Known {
        own: service.start(users[0]),
        foreign: service.start(users[1]),
        users,
    };
    let mut known = new_known(&mut service);
    let mut client = database.connect_as(role);
    for _ in 0..calls {
        if rng.below(200) == 0 {
            clean_up(&mut client, "ROLLBACK; RESET ALL");
            // A timeout that expired during the last statement may be reported by the next one.
            clean_up(&mut client, "RESET ALL");
            client.act_for(users[0]);
            // A prepared transaction that is left would keep all dead rows. Usually there is none.
            let _ = service.batch_execute("ROLLBACK PREPARED 'never'");
            known = new_known(&mut service);
        }
        let sql = statement(&mut rng, functions, &known);
        let mut code = "00000".to_owned();
        if let Err(error) = client.simple_query(&sql) {
            let what = format!("seed {seed}, {role}: {sql:.2000}: {error:?}");
            let error = error
                .as_db_error()
                .unwrap_or_else(|| panic!("the connection is lost: {what}"));
            code = error.code().code().to_owned();
            assert!(is_expected(&code), "{what}");
            assert!(!error.message().contains("panic"), "{what}");
            if code == "25P02" {
                clean_up(&mut client, "ROLLBACK");
            }
        }
        *answers.entry(code).or_default() += 1;
    }
    answers
}

#[test]
fn random_calls_by_any_role_cause_at_most_an_error() {
    // Short retentions, or ten million calls would fill the disk.
    let cluster = Cluster::private(&[
        ("max_prepared_transactions", "2"),
        ("presence.active_timeout", "10s"),
        ("presence.heartbeat_interval", "4s"),
        ("presence.retention", "1min"),
        ("presence.user_retention", "1min"),
        ("presence.feed_retention", "1min"),
    ]);
    let database = cluster.database();
    let worker = database.worker();
    let functions = functions(&mut database.connect());
    let wanted = u64::from(times(100_000, 10_000_000));
    let seed = seed();
    let roles = [
        database.client(),
        database.service(),
        database.reader(),
        database.service(),
    ];
    // A client that is a reader too, as Supabase's, may call the most functions.
    database.run(&format!(
        "SELECT presence.grant_reader('{0}'), presence.grant_holder('{0}')",
        roles[0]
    ));
    let answers: BTreeMap<String, u64> = thread::scope(|scope| {
        let callers: Vec<_> = roles
            .iter()
            .zip(seed..)
            .map(|(role, seed)| {
                let (database, functions) = (&database, &functions);
                scope.spawn(move || call(database, role, functions, seed, wanted / 4))
            })
            .collect();
        callers.into_iter().fold(BTreeMap::new(), |mut sum, caller| {
            for (code, count) in caller.join().expect("no panic") {
                *sum.entry(code).or_default() += count;
            }
            sum
        })
    });
    report(&format!(
        "{wanted} random calls of {} functions, seed {seed}: {answers:?}",
        functions.len()
    ));
    assert!(answers["00000"] > wanted / 4, "most calls are refused");
    database.assert_served();
    assert_eq!(database.worker(), worker, "the worker has survived");
    let signs = [
        "panicked",
        "PANIC: ",
        "XX000",
        "was terminated by signal",
        "invalid memory",
        "TRAP: ",
    ];
    for line in cluster.log_lines() {
        let bad = signs.iter().any(|sign| line.contains(sign));
        assert!(!bad, "the log contains {line}");
    }
}
