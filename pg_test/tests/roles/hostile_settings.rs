//! Settings that the owner of a database or a role may impose on every new connection.

use std::collections::BTreeMap;

use pg_presence_test::{Cluster, Database, Presence, force_parallel, report, soak};
use uuid::Uuid;

use crate::contract::CALLS;
use crate::login::{Login, ROWS, Row, fill, logins};
use crate::matrix::check_calls;

const SETTINGS: &[&str] = &[
    "search_path = ''",
    "search_path = '\"$user\", pg_temp'",
    "row_security = off",
    "transform_null_equals = on",
    "array_nulls = off",
    "quote_all_identifiers = on",
    "standard_conforming_strings = off",
    "backslash_quote = off",
    "check_function_bodies = off",
    "bytea_output = escape",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = sql_standard",
    "TimeZone = 'Pacific/Apia'",
    "extra_float_digits = -15",
    "client_encoding = LATIN1",
    "lc_messages = 'C'",
    "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on",
    "lock_timeout = '5s'",
    "statement_timeout = '20s'",
    "idle_in_transaction_session_timeout = '20s'",
    "plan_cache_mode = force_generic_plan",
    "plan_cache_mode = force_custom_plan",
    "enable_indexscan = off",
    "enable_seqscan = off",
    "jit_above_cost = 0",
    "work_mem = '64kB'",
    "temp_buffers = '800kB'",
    "synchronous_commit = off",
    "client_min_messages = debug5",
    "plpgsql.variable_conflict = use_variable",
    "plpgsql.extra_errors = 'all'",
    "xmloption = document",
    "track_activities = off",
    "session_replication_role = replica",
];

/// Settings that a role may set for itself, which take precedence.
const ROLE_SETTINGS: &[&str] = &[
    "search_path = '\"$user\", pg_temp'",
    "row_security = off",
    "default_transaction_isolation = serializable",
    "plan_cache_mode = force_generic_plan",
    "array_nulls = off",
    "IntervalStyle = sql_standard",
];

/// Returns a database with a change in its feed.
fn database() -> Database<'static> {
    let database = Cluster::shared().database();
    database.connect().start(Uuid::new_v4());
    database.wait_for_seq(1);
    database
}

/// Logs in a client with an identity, and a service.
fn two_logins(database: &Database) -> Vec<Login> {
    let mut logins = logins(database);
    logins.retain(|login| [2, 4].contains(&login.column));
    logins
}

#[test]
fn hostile_settings_of_a_database_or_role_change_no_answer() {
    let database = database();
    let mut service = database.connect();
    let rows = if soak() { &ROWS } else { &ROWS[..1] };
    let mut answers = 0;
    for setting in SETTINGS.iter().copied().chain([force_parallel()]) {
        println!("ALTER DATABASE … SET {setting}"); // shown if the test fails
        // Set by a superuser, who may set more than the role itself.
        database.run(&format!("ALTER DATABASE {} SET {setting}", database.name));
        for login in &mut two_logins(&database) {
            login.client.batch_execute("RESET search_path").unwrap();
            answers += check_calls(login, &mut service, rows);
        }
        database.run(&format!("ALTER DATABASE {} RESET ALL", database.name));
    }
    let mut logins = two_logins(&database);
    for setting in ROLE_SETTINGS {
        println!("ALTER ROLE … SET {setting}");
        for login in &mut logins {
            let role = &login.role;
            database.run(&format!("ALTER ROLE {role} SET {setting}"));
            login.client = database.connect_as(role);
            database.run(&format!("ALTER ROLE {role} RESET ALL"));
            answers += check_calls(login, &mut service, rows);
        }
    }
    report(&format!(
        "{answers} results under {} hostile settings",
        SETTINGS.len() + ROLE_SETTINGS.len()
    ));
}

/// A short statement_timeout cancels calls and has no other effect; a cancelled call has no effect at all.
#[test]
fn a_timeout_of_a_millisecond_cancels_calls_and_has_no_other_effect() {
    let database = database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let mut outcomes = BTreeMap::new();
    for (role, column) in [(database.client(), 2), (database.service(), 4)] {
        for setting in [
            "statement_timeout = '1ms'".to_owned(),
            format!("presence.user_id = '{user}'"),
        ] {
            database.run(&format!("ALTER ROLE {role} SET {setting}"));
        }
        let mut client = database.connect_as(&role);
        for _ in 0..if soak() { 200 } else { 5 } {
            service.execute("SELECT presence.forget_user($1)", &[&user]).unwrap();
            for (call, who, ..) in CALLS {
                let session = Row::Live.insert(&mut service, user);
                let sql = fill(&format!("SELECT presence.{call}"), &session, user);
                let code = match client.simple_query(&sql) {
                    Ok(_) => "00000".to_owned(),
                    Err(error) => error.code().expect("an error of the server").code().to_owned(),
                };
                let is_denied = who.as_bytes()[column] == b'-';
                assert!(
                    code == "57014" || code == if is_denied { "42501" } else { "00000" },
                    "{role}: {sql}: {code}"
                );
                if code == "57014" && call.starts_with("end_") {
                    assert_eq!(service.beat(session.id), "ok", "{role}: {sql}");
                }
                *outcomes.entry(code).or_insert(0) += 1;
            }
        }
    }
    report(&format!("with a timeout of 1 ms: {outcomes:?}"));
    database.assert_served();
}
