//! presence_health() and presence_stats: what they report, and who may read them.

use pg_presence_test::{
    Cluster, Database, Install, Presence, Shutdown, assert_refused, error_of, server_major, wait_until,
    wait_until_equal,
};
use postgres::Client;
use postgres::error::SqlState;
use uuid::Uuid;

/// Returns the checks that are not ok.
fn failed_checks(client: &mut Client) -> Vec<String> {
    let sql = "SELECT check_name FROM presence.presence_health()
               WHERE NOT ok OR (ok = (hint IS NOT NULL)) OR detail IS NULL ORDER BY 1";
    let rows = client.query(sql, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Returns a database whose worker has started.
fn healthy(cluster: &Cluster) -> Database<'_> {
    let database = cluster.database();
    let mut client = database.connect();
    wait_until("a healthy start", || failed_checks(&mut client).is_empty());
    database
}

/// Waits until no check fails.
fn assert_well(client: &mut Client) {
    wait_until_equal("the failed checks", &Vec::new(), || failed_checks(client));
}

/// Waits until only this check fails: one about the worker may, for a moment, where the machine stalls.
fn assert_only(check: &str, client: &mut Client) {
    wait_until_equal("the failed checks", &vec![check.to_owned()], || failed_checks(client));
}

#[test]
fn disabled_row_security_is_found() {
    let database = healthy(Cluster::shared());
    database.run("ALTER TABLE presence.user_sessions DISABLE ROW LEVEL SECURITY");
    assert_only("row_security", &mut database.connect());
}

#[test]
fn tables_of_several_owners_are_found() {
    let database = healthy(Cluster::shared());
    let role = database.role("owner");
    database.run(&format!("ALTER TABLE presence.presence_changes OWNER TO {role}"));
    assert_only("owner", &mut database.connect());
}

#[test]
fn triggers_that_are_no_longer_enabled_always_are_found() {
    let database = healthy(Cluster::shared());
    database.run(
        "ALTER TABLE presence.user_sessions DISABLE TRIGGER ALL;
         ALTER TABLE presence.user_sessions ENABLE TRIGGER ALL",
    );
    // Memory is complete until the worker sees it, too.
    let mut client = database.connect();
    wait_until("both checks to fail", || {
        let failed = failed_checks(&mut client);
        assert!(failed.contains(&"triggers".to_owned()), "{failed:?}");
        failed == ["complete", "triggers"]
    });
}

#[test]
fn privileges_beyond_the_documented_ones_are_found() {
    let database = healthy(Cluster::shared());
    let mut client = database.connect();
    let role = database.client();
    for right in [
        "TRUNCATE ON presence.user_sessions",
        "DELETE ON presence.user_sessions",
        "UPDATE ON presence.user_sessions",
        "INSERT ON presence.user_presence",
        "SELECT ON presence._feed_state",
        "EXECUTE ON FUNCTION presence.grant_client(regrole)",
        "EXECUTE ON FUNCTION presence._before_write()",
    ] {
        database.run(&format!("GRANT {right} TO {role}"));
        assert_only("grants", &mut client);
        database.run(&format!("REVOKE {right} FROM {role}"));
        // Revoking UPDATE on the table revokes it on the columns too.
        database.run(&format!("SELECT presence.grant_client('{role}')"));
        assert_well(&mut client);
    }
    database.run("GRANT EXECUTE ON FUNCTION presence.online_users() TO PUBLIC");
    assert_only("grants", &mut client);
}

#[test]
fn a_service_granted_to_public_is_found() {
    let database = healthy(Cluster::shared());
    database.run("GRANT USAGE ON TYPE presence._service_marker TO PUBLIC");
    assert_only("services", &mut database.connect());
}

#[test]
fn health_names_the_services() {
    let database = healthy(Cluster::shared());
    let role = database.service();
    let mut client = database.connect();
    assert_well(&mut client);
    let sql = "SELECT detail FROM presence.presence_health() WHERE check_name = 'services'";
    let detail: String = client.query_one(sql, &[]).unwrap().get(0);
    assert!(detail.contains(&role), "{detail}");
}

#[test]
fn a_schema_that_others_may_create_in_is_found() {
    let database = healthy(Cluster::shared());
    let role = database.role("creator");
    database.run(&format!("GRANT CREATE ON SCHEMA presence TO {role}"));
    assert_only("schema", &mut database.connect());
}

#[test]
fn contradictory_settings_are_found() {
    let cluster = Cluster::private(&[
        ("presence.active_timeout", "2min"),
        ("presence.heartbeat_interval", "2min"),
    ]);
    let database = cluster.database();
    let mut client = database.connect();
    wait_until("the worker has started", || failed_checks(&mut client) == ["settings"]);
    cluster.set("presence.heartbeat_interval", "30s");
    cluster.set("presence.flush_interval", "30s");
    wait_until("every check is ok", || failed_checks(&mut client).is_empty());
}

#[test]
fn an_unusable_user_id_function_is_found() {
    let database = healthy(Cluster::shared());
    database.run("CREATE FUNCTION public.many(uuid) RETURNS SETOF uuid LANGUAGE sql AS 'SELECT $1'");
    for name in [
        "user_of",
        "public.no_such_function",
        "pg_catalog.uuid_send",
        "public.many",
        "public.f(uuid)",
        "public.",
        "\"",
        "a.b.c.d.e",
    ] {
        let mut client = database.connect();
        let set = format!("SET presence.user_id_function = '{name}'");
        client.batch_execute(&set).unwrap();
        assert_only("identity", &mut client);
    }
}

#[test]
fn parameters_in_the_log_are_found() {
    let database = healthy(Cluster::shared());
    let mut client = database.connect();
    let parameters = match server_major() {
        ..=15 => None,
        _ => Some((
            "auto_explain.log_min_duration = 0; SET auto_explain.log_verbose = off",
            "auto_explain.log_parameter_max_length = 0",
        )),
    };
    // Else each plan is logged with the parameters.
    let verbose = match server_major() {
        ..=15 => "auto_explain.log_min_duration = 0; SET auto_explain.log_verbose = on",
        _ => {
            "auto_explain.log_min_duration = 0; SET auto_explain.log_verbose = on;
             SET auto_explain.log_parameter_max_length = 0"
        }
    };
    for (setting, cure) in [
        ("log_min_duration_statement = 0", "log_parameter_max_length = 0"),
        ("log_statement = mod", "log_parameter_max_length = 0"),
        (
            "log_parameter_max_length_on_error = 10",
            "log_parameter_max_length_on_error = 0",
        ),
        (verbose, "auto_explain.log_verbose = off"),
    ]
    .into_iter()
    .chain(parameters)
    {
        client
            .batch_execute(&format!("LOAD 'auto_explain'; SET {setting}"))
            .unwrap();
        assert_only("logging", &mut client);
        client.batch_execute(&format!("SET {cure}")).unwrap();
        assert_well(&mut client);
        client.batch_execute("RESET ALL").unwrap();
    }
}

#[test]
fn without_preload_health_still_answers() {
    let cluster = Cluster::private(&[]);
    let database = healthy(&cluster);
    cluster.stop(Shutdown::Fast);
    cluster.configure(&[("shared_preload_libraries", "")]);
    cluster.start();
    assert_only("preload", &mut database.connect());
}

#[test]
fn only_services_and_monitors_may_read_health_and_statistics() {
    let database = healthy(Cluster::shared());
    let monitor = database.role("monitor");
    database.run(&format!(
        "GRANT pg_monitor TO {monitor}; REVOKE USAGE ON SCHEMA presence FROM {monitor}"
    ));
    for role in [database.service(), monitor] {
        let mut client = database.connect_as(&role);
        assert_well(&mut client);
        client.query_one("SELECT * FROM presence.presence_stats", &[]).unwrap();
    }
    for role in [database.client(), database.reader(), database.holder()] {
        let mut client = database.connect_as(&role);
        for sql in [
            "SELECT FROM presence.presence_health()",
            "SELECT FROM presence.presence_stats",
            "SELECT FROM presence._stats()",
        ] {
            let error = error_of(client.query(sql, &[]));
            assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
        }
    }
}

#[test]
fn the_statistics_follow_what_happens() {
    let database = healthy(Cluster::shared());
    let mut service = database.connect();
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let session = service.start(one).id;
    service.start(one);
    let ended = service.start(two).id;
    service.beat(session);
    service.beat(Uuid::new_v4());
    service.end(ended);
    let mut expect = |what: &str| {
        wait_until(what, || {
            let sql = format!("SELECT {what} FROM presence.presence_stats");
            service.query_one(&sql, &[]).unwrap().get::<_, Option<bool>>(0) == Some(true)
        });
    };
    expect("(live_sessions, known_sessions, users_online) = (2, 2, 1)");
    expect("(beats, rejected_beats) = (1, 1)");
    expect("capacity >= 100000 AND used >= 2 AND NOT in_overflow AND is_complete");
    expect("seq = changes AND seq > 0 AND notifications > 0");
    expect("worker_pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())");
    expect("last_tick_at > now() - interval '10 s' AND notification_queue_usage < 1 AND epoch <> ''");
}

#[test]
fn roles_are_granted_by_the_owner_only_and_revoked_as_usual() {
    let database = Cluster::shared().database();
    let service = database.service();
    let mut client = database.connect_as(&service);
    for what in ["holder", "client", "reader", "service"] {
        let sql = format!("SELECT presence.grant_{what}('{service}')");
        let error = error_of(client.batch_execute(&sql));
        assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
        let sql = format!("SELECT presence.grant_{what}(NULL)");
        assert_refused(
            database.connect().batch_execute(&sql),
            &SqlState::INVALID_PARAMETER_VALUE,
        );
    }
    let is_service =
        |client: &mut Client| -> bool { client.query_one("SELECT presence.is_service()", &[]).unwrap().get(0) };
    assert!(is_service(&mut client));
    database.run(&format!("REVOKE USAGE ON TYPE presence._service_marker FROM {service}"));
    assert!(!is_service(&mut client));
}

#[test]
fn a_dump_keeps_sessions_statuses_and_privileges() {
    let cluster = Cluster::shared();
    let (from, to) = (cluster.database(), cluster.database_with(Install::None));
    let service = from.service();
    let mut before = from.connect();
    let (user, gone) = (Uuid::new_v4(), Uuid::new_v4());
    let session = before.start(user);
    let ended = before.start(gone).id;
    before.end(ended);
    let written = "SELECT count(*) FROM presence.user_presence";
    wait_until("both are written", || {
        before.query_one(written, &[]).unwrap().get::<_, i64>(0) == 2
    });
    let cursor = "SELECT epoch, seq FROM presence.presence_cursor()";
    let old = before.query_one(cursor, &[]).unwrap();

    let dump = cluster.program("pg_dump", &from.name).output().unwrap();
    assert!(dump.status.success());
    let mut psql = cluster.program("psql", &to.name);
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"])
        .stdin(std::process::Stdio::piped());
    let mut restore = psql.spawn().unwrap();
    std::io::Write::write_all(&mut restore.stdin.take().unwrap(), &dump.stdout).unwrap();
    assert!(restore.wait().unwrap().success());

    let mut after = to.connect();
    assert!(after.is_online(user));
    assert!(!after.is_online(gone));
    assert_eq!(after.beat(session.id), "ok");
    assert_eq!(after.beat_by_token(&session.token), "ok");
    assert_eq!(after.beat(ended), "ended");
    let mut restored = to.connect_as(&service);
    assert!(
        restored
            .query_one("SELECT presence.is_service()", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    wait_until("the feed continues in a new epoch", || {
        let new = after.query_one(cursor, &[]).unwrap();
        new.get::<_, &str>(0) != old.get::<_, &str>(0) && new.get::<_, i64>(1) >= old.get::<_, i64>(1)
    });
    wait_until("every check is ok", || failed_checks(&mut after).is_empty());
}

#[test]
fn a_schema_may_be_renamed() {
    let database = healthy(Cluster::shared());
    let mut service = database.connect();
    let (user, session) = {
        let user = Uuid::new_v4();
        (user, service.start(user))
    };
    let role = database.role("late");
    database.run("ALTER SCHEMA presence RENAME TO \"Who's here\"");
    service
        .batch_execute(&format!(
            "SET search_path = \"Who's here\"; SELECT grant_service('{role}'); SELECT * FROM presence_stats"
        ))
        .unwrap();
    let sql = "SELECT count(*) FROM presence_health() WHERE NOT ok";
    wait_until("every check is ok", || {
        service.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0
    });
    let sql = "SELECT heartbeat($1), is_online($2)";
    let row = service.query_one(sql, &[&session.id, &user]).unwrap();
    assert_eq!((row.get(0), row.get(1)), ("ok", true));
    service
        .execute("UPDATE user_sessions SET is_active = false", &[])
        .unwrap();
    let row = service.query_one(sql, &[&session.id, &user]).unwrap();
    assert_eq!((row.get(0), row.get(1)), ("ended", false));
    let changes = "SELECT count(*) FROM user_presence WHERE NOT is_online";
    wait_until("the worker finds its tables", || {
        service.query_one(changes, &[]).unwrap().get::<_, i64>(0) == 1
    });
}
