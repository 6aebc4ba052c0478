//! presence_health() and presence_stats: what they find, and who may look.

use pg_presence_test::{
    Cluster, Database, Install, Presence, Shutdown, refusal, refused, wait_until,
};
use postgres::Client;
use postgres::error::SqlState;
use uuid::Uuid;

/// The checks that are not ok.
fn complaints(client: &mut Client) -> Vec<String> {
    let sql = "SELECT check_name FROM presence.presence_health()
               WHERE NOT ok OR (ok = (hint IS NOT NULL)) OR detail IS NULL ORDER BY 1";
    let rows = client.query(sql, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A database whose worker has begun.
fn healthy(cluster: &Cluster) -> Database<'_> {
    let database = cluster.database();
    let mut client = database.connect();
    wait_until("a healthy start", || complaints(&mut client).is_empty());
    database
}

fn only(complaint: &str, client: &mut Client) {
    assert_eq!(complaints(client), [complaint]);
}

#[test]
fn row_security_that_is_off_is_found() {
    let database = healthy(Cluster::shared());
    database.run("ALTER TABLE presence.user_sessions DISABLE ROW LEVEL SECURITY");
    only("row_security", &mut database.connect());
}

#[test]
fn tables_of_several_owners_are_found() {
    let database = healthy(Cluster::shared());
    let role = database.role("owner");
    database.run(&format!(
        "ALTER TABLE presence.presence_changes OWNER TO {role}"
    ));
    only("owner", &mut database.connect());
}

#[test]
fn triggers_that_a_restore_has_made_ordinary_are_found() {
    let database = healthy(Cluster::shared());
    database.run(
        "ALTER TABLE presence.user_sessions DISABLE TRIGGER ALL;
         ALTER TABLE presence.user_sessions ENABLE TRIGGER ALL",
    );
    only("triggers", &mut database.connect());
}

#[test]
fn rights_that_are_not_ours_to_give_are_found() {
    let database = healthy(Cluster::shared());
    let mut client = database.connect();
    let role = database.client();
    for right in [
        "TRUNCATE ON presence.user_sessions",
        "DELETE ON presence.user_sessions",
        "UPDATE ON presence.user_sessions",
        "INSERT ON presence.user_presence",
        "SELECT ON presence.presence_state",
        "EXECUTE ON FUNCTION presence.grant_client(regrole)",
        "EXECUTE ON FUNCTION presence.presence_guard()",
    ] {
        database.run(&format!("GRANT {right} TO {role}"));
        only("grants", &mut client);
        database.run(&format!("REVOKE {right} FROM {role}"));
        // Taking UPDATE away takes it away from the columns too.
        database.run(&format!("SELECT presence.grant_client('{role}')"));
        assert!(complaints(&mut client).is_empty(), "{right}");
    }
    database.run("GRANT EXECUTE ON FUNCTION presence.online_users() TO PUBLIC");
    only("grants", &mut client);
}

#[test]
fn everybody_as_a_service_is_found() {
    let database = healthy(Cluster::shared());
    database.run("GRANT EXECUTE ON FUNCTION presence.presence_service_marker() TO PUBLIC");
    only("services", &mut database.connect());
}

#[test]
fn services_are_named() {
    let database = healthy(Cluster::shared());
    let role = database.service();
    let mut client = database.connect();
    assert!(complaints(&mut client).is_empty());
    let sql = "SELECT detail FROM presence.presence_health() WHERE check_name = 'services'";
    let detail: String = client.query_one(sql, &[]).unwrap().get(0);
    assert!(detail.contains(&role), "{detail}");
}

#[test]
fn a_schema_that_others_may_create_in_is_found() {
    let database = healthy(Cluster::shared());
    let role = database.role("planter");
    database.run(&format!("GRANT CREATE ON SCHEMA presence TO {role}"));
    only("schema", &mut database.connect());
}

#[test]
fn settings_that_contradict_each_other_are_found() {
    let cluster = Cluster::own(&[
        ("presence.active_timeout", "2min"),
        ("presence.heartbeat_interval", "2min"),
    ]);
    let database = cluster.database();
    let mut client = database.connect();
    wait_until("the worker has begun", || {
        complaints(&mut client) == ["settings"]
    });
    cluster.set("presence.heartbeat_interval", "30s");
    cluster.set("presence.flush_interval", "30s");
    wait_until("all is well", || complaints(&mut client).is_empty());
}

#[test]
fn a_function_of_users_that_is_none_is_found() {
    let database = healthy(Cluster::shared());
    for name in ["user_of", "public.no_such_function", "pg_catalog.uuid_send"] {
        let mut client = database.connect();
        let set = format!("SET presence.user_id_function = '{name}'");
        client.batch_execute(&set).unwrap();
        only("identity", &mut client);
    }
}

#[test]
fn parameters_in_the_log_are_found() {
    let database = healthy(Cluster::shared());
    let mut client = database.connect();
    for (setting, cure) in [
        (
            "log_min_duration_statement = 0",
            "log_parameter_max_length = 0",
        ),
        ("log_statement = mod", "log_parameter_max_length = 0"),
        (
            "log_parameter_max_length_on_error = 10",
            "log_parameter_max_length_on_error = 0",
        ),
        (
            "auto_explain.log_min_duration = 0; SET auto_explain.log_verbose = on",
            "auto_explain.log_verbose = off",
        ),
    ] {
        client
            .batch_execute(&format!("LOAD 'auto_explain'; SET {setting}"))
            .unwrap();
        only("logging", &mut client);
        client.batch_execute(&format!("SET {cure}")).unwrap();
        assert!(complaints(&mut client).is_empty(), "{cure}");
        client.batch_execute("RESET ALL").unwrap();
    }
}

#[test]
fn without_preload_health_still_answers() {
    let cluster = Cluster::own(&[]);
    let database = healthy(&cluster);
    cluster.stop(Shutdown::Fast);
    cluster.configure(&[("shared_preload_libraries", "")]);
    cluster.start();
    only("preload", &mut database.connect());
}

#[test]
fn services_and_monitors_may_look_and_nobody_else() {
    let database = healthy(Cluster::shared());
    let monitor = database.role("monitor");
    database.run(&format!(
        "GRANT pg_monitor TO {monitor}; REVOKE USAGE ON SCHEMA presence FROM {monitor}"
    ));
    for role in [database.service(), monitor] {
        let mut client = database.connect_as(&role);
        assert!(complaints(&mut client).is_empty());
        client
            .query_one("SELECT * FROM presence.presence_stats", &[])
            .unwrap();
    }
    for role in [database.client(), database.reader(), database.holder()] {
        let mut client = database.connect_as(&role);
        for sql in [
            "SELECT FROM presence.presence_health()",
            "SELECT FROM presence.presence_stats",
            "SELECT FROM presence.presence_stats_raw()",
        ] {
            let error = refusal(client.query(sql, &[]));
            assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
        }
    }
}

#[test]
fn the_figures_follow_what_happens() {
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
            service
                .query_one(&sql, &[])
                .unwrap()
                .get::<_, Option<bool>>(0)
                == Some(true)
        });
    };
    expect("(live_sessions, known_sessions, users_online) = (2, 2, 1)");
    expect("(beats, rejected_beats) = (1, 1)");
    expect("capacity >= 100000 AND used >= 2 AND NOT in_overflow AND is_complete");
    expect("seq = changes AND seq > 0 AND notifications > 0");
    expect("worker_pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())");
    expect(
        "last_tick_at > now() - interval '10 s' AND notification_queue_usage < 1 AND epoch <> ''",
    );
}

#[test]
fn rights_are_given_by_the_owner_only_and_taken_back_like_any() {
    let database = Cluster::shared().database();
    let service = database.service();
    let mut client = database.connect_as(&service);
    for what in ["holder", "client", "reader", "service"] {
        let sql = format!("SELECT presence.grant_{what}('{service}')");
        let error = refusal(client.batch_execute(&sql));
        assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
        let sql = format!("SELECT presence.grant_{what}(NULL)");
        refused(
            database.connect().batch_execute(&sql),
            &SqlState::INVALID_PARAMETER_VALUE,
        );
    }
    let is_service = |client: &mut Client| -> bool {
        client
            .query_one("SELECT presence.is_service()", &[])
            .unwrap()
            .get(0)
    };
    assert!(is_service(&mut client));
    database.run(&format!(
        "REVOKE EXECUTE ON FUNCTION presence.presence_service_marker() FROM {service}"
    ));
    assert!(!is_service(&mut client));
}

#[test]
fn a_dump_keeps_sessions_presence_and_rights() {
    let cluster = Cluster::shared();
    let (from, to) = (cluster.database(), cluster.database_with(Install::Not));
    let service = from.service();
    let mut before = from.connect();
    let (user, gone) = (Uuid::new_v4(), Uuid::new_v4());
    let session = before.start(user);
    let ended = before.start(gone).id;
    before.end(ended);
    let told = "SELECT count(*) FROM presence.user_presence";
    wait_until("both are told", || {
        before.query_one(told, &[]).unwrap().get::<_, i64>(0) == 2
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
    wait_until("the feed goes on in a new epoch", || {
        let new = after.query_one(cursor, &[]).unwrap();
        new.get::<_, &str>(0) != old.get::<_, &str>(0)
            && new.get::<_, i64>(1) >= old.get::<_, i64>(1)
    });
    wait_until("all is well", || complaints(&mut after).is_empty());
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
    wait_until("all is well", || {
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
