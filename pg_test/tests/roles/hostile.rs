//! Settings that the owner of a database or a role may leave for everybody who connects.

use pg_presence_test::{Cluster, figure, soak};

use crate::login::{ROWS, logins};
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
    "force_parallel_mode = on",
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

#[test]
fn settings_left_for_a_connection_change_no_answer() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    service
        .batch_execute("SELECT presence.start_session(gen_random_uuid())")
        .unwrap();
    database.wait_for_seq(1);
    let rows = if soak() { &ROWS } else { &ROWS[..1] };
    let mut answers = 0;
    for setting in SETTINGS {
        // As the superuser leaves it, who may set more than the role itself.
        database.run(&format!("ALTER DATABASE {} SET {setting}", database.name));
        // A client with its identity, and a service.
        for login in logins(&database)
            .iter_mut()
            .filter(|login| [2, 4].contains(&login.column))
        {
            login.client.batch_execute("RESET search_path").unwrap();
            answers += check_calls(login, &mut service, rows);
        }
        database.run(&format!("ALTER DATABASE {} RESET ALL", database.name));
    }
    figure(&format!(
        "{answers} answers under {} hostile settings",
        SETTINGS.len()
    ));
}
