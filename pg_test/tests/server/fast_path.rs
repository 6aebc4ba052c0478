//! A statement that is a single heartbeat takes a fast path, which differs in nothing but speed.

use std::sync::{Arc, Mutex};

use pg_presence_test::{Cluster, Database, Presence, assert_denied, error_of, wait_until};
use postgres::{Client, NoTls, SimpleQueryMessage, Statement, error::SqlState};
use uuid::Uuid;

const BEAT: &str = "SELECT presence.heartbeat($1)";

/// A superuser's connection that receives the plan of each statement it runs.
pub struct Watched {
    pub client: Client,
    plans: Arc<Mutex<String>>,
}

impl Watched {
    pub fn new(database: &Database) -> Watched {
        let plans = Arc::new(Mutex::new(String::new()));
        let received = plans.clone();
        let mut client = database
            .cluster
            .config(&database.name, "postgres")
            .notice_callback(move |notice| received.lock().unwrap().push_str(notice.message()))
            .connect(NoTls)
            .unwrap();
        client
            .batch_execute(
                "LOAD 'auto_explain';
                 SET auto_explain.log_min_duration = 0;
                 SET client_min_messages = log",
            )
            .unwrap();
        Watched { client, plans }
    }

    /// Beats; returns the result and whether the statement took the fast path.
    fn beat(&mut self, beat: &Statement, session: Option<Uuid>) -> (String, bool) {
        let answer = answer(&mut self.client, beat, session).expect("not NULL");
        (answer, self.took_fast_path())
    }

    /// Asserts that beats take the fast path, except for one now and then: a change of roles or functions anywhere makes
    /// all connections check again.
    fn assert_takes_fast_path(&mut self, beat: &Statement, session: Option<Uuid>, answer: &str) {
        wait_until("a beat by the fast path", || {
            let (found, took_fast_path) = self.beat(beat, session);
            assert_eq!(found, answer);
            took_fast_path
        });
    }

    /// Whether a statement since the last call of this took the fast path.
    pub fn took_fast_path(&mut self) -> bool {
        // A statement's plan may arrive after its result.
        self.client.batch_execute("SET application_name = ''").unwrap();
        std::mem::take(&mut *self.plans.lock().unwrap()).contains("Custom Scan (presence call)")
    }
}

/// Returns how many heartbeats the server has counted.
fn beats(client: &mut Client) -> i64 {
    client
        .query_one("SELECT beats FROM presence.presence_stats", &[])
        .unwrap()
        .get(0)
}

fn answer(client: &mut Client, beat: &Statement, session: Option<Uuid>) -> Option<String> {
    client.query_one(beat, &[&session]).unwrap().get(0)
}

#[test]
fn a_statement_that_is_one_heartbeat_takes_the_fast_path_once_its_function_is_known() {
    let database = Cluster::shared().database();
    let mut watched = Watched::new(&database);
    let (session, other) = (database.connect().start(Uuid::new_v4()).id, Uuid::new_v4());
    let beat = watched.client.prepare(BEAT).unwrap();
    assert_eq!(watched.beat(&beat, Some(session)), ("ok".into(), false));
    // In the custom plans that PostgreSQL tries first, and in the generic plan.
    for _ in 0..8 {
        watched.assert_takes_fast_path(&beat, Some(session), "ok");
    }
    watched.assert_takes_fast_path(&beat, Some(other), "unknown");
    watched.assert_takes_fast_path(&beat, None, "unknown");
    database.connect().end(session);
    watched.assert_takes_fast_path(&beat, Some(session), "ended");
    let named = format!("SELECT presence.heartbeat('{session}') AS seen");
    let named = watched.client.prepare(&named).unwrap();
    wait_until("a beat by the fast path", || {
        let row = watched.client.query_one(&named, &[]).unwrap();
        assert_eq!((row.columns()[0].name(), row.get(0)), ("seen", "ended"));
        watched.took_fast_path()
    });
    // In the simple query protocol column names arrive with the rows.
    let simple = format!("SELECT presence.heartbeat('{session}') AS seen");
    for message in watched.client.simple_query(&simple).unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            assert_eq!(row.get("seen"), Some("ended"));
        }
    }
}

#[test]
fn explain_shows_postgresqls_plan_and_beats_only_with_analyze() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    let session = client.start(Uuid::new_v4()).id;
    client.beat(session);
    for (options, times) in [("VERBOSE", 0), ("ANALYZE, VERBOSE", 1)] {
        let sql = format!("EXPLAIN ({options}) SELECT presence.heartbeat('{session}')");
        let before = beats(&mut client);
        let rows = client.query(&sql, &[]).unwrap();
        assert!(rows[0].get::<_, &str>(0).starts_with("Result "), "{rows:?}");
        assert_eq!(beats(&mut client) - before, times, "{sql}");
    }
}

#[test]
fn in_any_statement_a_heartbeat_counts_as_often_as_it_is_called() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    let session = client.start(Uuid::new_v4()).id;
    let beat = format!("presence.heartbeat('{session}')");
    client
        .batch_execute(&format!(
            "CREATE TABLE public.written (n integer);
             CREATE FUNCTION public.wrapped(session uuid) RETURNS text LANGUAGE sql
                 AS 'SELECT presence.heartbeat($1)';
             SELECT {beat}"
        ))
        .unwrap();
    for (statement, times) in [
        ("SELECT {}", 1),
        ("SELECT {}; SELECT {}", 2),
        ("SELECT {} WHERE false", 0),
        ("SELECT {} WHERE random() < 0", 0),
        ("SELECT {} LIMIT 0", 0),
        ("SELECT {} OFFSET 1", 1),
        ("SELECT {}, {}", 2),
        ("SELECT {} UNION ALL SELECT {}", 2),
        ("SELECT {} FROM generate_series(1, 3)", 3),
        ("SELECT upper({})", 1),
        ("SELECT (SELECT {})", 1),
        ("SELECT * FROM {}", 1),
        (
            "WITH row AS (INSERT INTO public.written VALUES (1) RETURNING n) SELECT {}",
            1,
        ),
        ("EXPLAIN SELECT {}", 0),
        ("EXPLAIN (ANALYZE, VERBOSE) SELECT {}", 1),
        ("CREATE TEMP TABLE answers AS SELECT {} AS answer", 1),
        ("CREATE TEMP TABLE no_answers AS SELECT {} AS answer WITH NO DATA", 0),
        ("INSERT INTO answers SELECT {}", 1),
        ("COPY (SELECT {}) TO '/dev/null'", 1),
        ("BEGIN; DECLARE c CURSOR FOR SELECT {}; COMMIT", 0),
        (
            "BEGIN; DECLARE c CURSOR FOR SELECT {}; FETCH ALL c; FETCH ALL c; COMMIT",
            1,
        ),
        (
            "BEGIN; DECLARE c SCROLL CURSOR FOR SELECT {}; FETCH c; FETCH c; FETCH PRIOR c; MOVE ABSOLUTE 0 c;
          FETCH c; COMMIT",
            1,
        ),
        (
            "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT {}; COMMIT; FETCH ALL c; CLOSE c",
            1,
        ),
        ("DO $$ DECLARE answer text; BEGIN answer := {}; END $$", 1),
        ("DO $$ BEGIN PERFORM {}; END $$", 1),
        (
            "DO $$ DECLARE answer text; BEGIN SELECT {} INTO STRICT answer; END $$",
            1,
        ),
        (
            "DO $$ DECLARE answer text; BEGIN
              FOR n IN 1 .. 8 LOOP
                  EXECUTE 'SELECT presence.heartbeat($1)' INTO answer USING '$session'::uuid;
                  ASSERT answer = 'ok';
              END LOOP;
          END $$",
            8,
        ),
        (
            "DO $$ DECLARE session uuid = '$session'; answer text; BEGIN
              FOR n IN 1 .. 8 LOOP
                  SELECT presence.heartbeat(session) INTO answer;
                  ASSERT answer = 'ok';
              END LOOP;
          END $$",
            8,
        ),
        ("SELECT public.wrapped('$session')", 1),
        (
            "PREPARE p AS SELECT presence.heartbeat($1); EXECUTE p('$session'); EXECUTE p(NULL); DEALLOCATE p",
            1,
        ),
        (
            "PREPARE p (text) AS SELECT presence.heartbeat($1::uuid); EXECUTE p('$session'); DEALLOCATE p",
            1,
        ),
        (
            "PREPARE p (uuid, uuid) AS SELECT presence.heartbeat($2); EXECUTE p(NULL, '$session'); DEALLOCATE p",
            1,
        ),
    ] {
        let sql = statement.replace("{}", &beat).replace("$session", &session.to_string());
        let before = beats(&mut client);
        client
            .batch_execute(&sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(beats(&mut client) - before, times, "{sql}");
    }
    let both: (String, i64) = {
        let sql = "SELECT min(answer), count(*) FROM answers, public.written";
        let row = client.query_one(sql, &[]).unwrap();
        (row.get(0), row.get(1))
    };
    assert_eq!(both, ("ok".into(), 2));
}

#[test]
fn a_portal_that_is_read_row_by_row_beats_once() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    let session = client.start(Uuid::new_v4()).id;
    client.beat(session);
    let before = beats(&mut client);
    let mut transaction = client.transaction().unwrap();
    let portal = transaction.bind(BEAT, &[&session]).unwrap();
    assert_eq!(transaction.query_portal(&portal, 1).unwrap().len(), 1);
    assert_eq!(transaction.query_portal(&portal, 1).unwrap().len(), 0);
    transaction.commit().unwrap();
    assert_eq!(beats(&mut client) - before, 1);
}

#[test]
fn the_privilege_to_beat_is_checked_by_every_statement() {
    let database = Cluster::shared().database();
    let user = Uuid::new_v4();
    let group = database.client();
    let member = database.role("member");
    database.run(&format!("GRANT {group} TO {member}"));
    let mut client = database.connect_as(&member);
    client.act_for(user);
    let session = client.start_own().id;
    let beat = client.prepare(BEAT).unwrap();
    let beats = |client: &mut Client| {
        for _ in 0..3 {
            assert_eq!(answer(client, &beat, Some(session)).as_deref(), Some("ok"));
        }
    };
    let stranger = database.role("stranger");
    database.run(&format!("GRANT {stranger} TO {member}"));
    for (take, give) in [
        (
            format!("REVOKE EXECUTE ON FUNCTION presence.heartbeat(uuid) FROM {group}"),
            format!("GRANT EXECUTE ON FUNCTION presence.heartbeat(uuid) TO {group}"),
        ),
        (
            format!("REVOKE {group} FROM {member}"),
            format!("ALTER ROLE {member} SUPERUSER"),
        ),
        (
            format!("ALTER ROLE {member} NOSUPERUSER"),
            format!("GRANT {group} TO {member}"),
        ),
    ] {
        beats(&mut client);
        database.run(&take);
        let error = assert_denied(client.query_one(&beat, &[&session]));
        assert_eq!(error.message(), "permission denied for function heartbeat", "{take}");
        database.run(&give);
    }
    beats(&mut client);
    client.batch_execute(&format!("SET ROLE {stranger}")).unwrap();
    assert_denied(client.query_one(&beat, &[&session]));
    // Planned with one role, and called with another.
    client.batch_execute("RESET ROLE").unwrap();
    let change = "SELECT set_config('role', $1, false), presence.heartbeat($2)";
    client.query_one(change, &[&stranger, &session]).unwrap();
    assert_denied(client.query_one(&beat, &[&session]));
    client.batch_execute("RESET ROLE").unwrap();
    beats(&mut client);
}

#[test]
fn a_privilege_revoked_within_the_transaction_is_gone_at_once_and_back_with_its_rollback() {
    let database = Cluster::shared().database();
    let role = database.client();
    let mut client = database.connect();
    let session = client.start(Uuid::new_v4()).id;
    let beat = client.prepare(BEAT).unwrap();
    let as_role = format!("SET LOCAL ROLE {role}");
    client.batch_execute(&format!("BEGIN; {as_role}")).unwrap();
    for _ in 0..3 {
        assert_eq!(answer(&mut client, &beat, Some(session)).as_deref(), Some("unknown"));
    }
    client
        .batch_execute(&format!(
            "RESET ROLE; REVOKE EXECUTE ON FUNCTION presence.heartbeat(uuid) FROM {role}; {as_role}"
        ))
        .unwrap();
    assert_denied(client.query_one(&beat, &[&session]));
    client.batch_execute(&format!("ROLLBACK; BEGIN; {as_role}")).unwrap();
    assert_eq!(answer(&mut client, &beat, Some(session)).as_deref(), Some("unknown"));
}

#[test]
fn a_changed_function_is_called_as_it_is_now() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    let session = client.start(Uuid::new_v4()).id;
    let beat = client.prepare(BEAT).unwrap();
    let mut answer = |session: Option<Uuid>| answer(&mut client, &beat, session);
    for _ in 0..3 {
        assert_eq!(answer(None).as_deref(), Some("unknown"));
    }
    database.run("ALTER FUNCTION presence.heartbeat(uuid) STRICT");
    for _ in 0..3 {
        assert_eq!(answer(None), None);
        assert_eq!(answer(Some(session)).as_deref(), Some("ok"));
    }
    database.run("ALTER FUNCTION presence.heartbeat(uuid) CALLED ON NULL INPUT");
    for _ in 0..3 {
        assert_eq!(answer(None).as_deref(), Some("unknown"));
    }
    database.run(
        "CREATE OR REPLACE FUNCTION presence.heartbeat(session_id uuid) RETURNS text LANGUAGE sql
         AS $$ SELECT 'mine' $$",
    );
    for _ in 0..3 {
        assert_eq!(answer(Some(session)).as_deref(), Some("mine"));
    }
    database.run("DROP EXTENSION pg_presence CASCADE");
    let error = error_of(client.query_one(&beat, &[&session]));
    assert_eq!(error.code(), &SqlState::UNDEFINED_FUNCTION, "{error:?}");
}

#[test]
fn a_function_with_settings_or_security_definer_does_not_take_the_fast_path() {
    let database = Cluster::shared().database();
    let mut watched = Watched::new(&database);
    let session = database.connect().start(Uuid::new_v4()).id;
    let beat = watched.client.prepare(BEAT).unwrap();
    watched.assert_takes_fast_path(&beat, Some(session), "ok");
    for (give, take) in [
        ("SET work_mem = '1MB'", "RESET work_mem"),
        ("SECURITY DEFINER", "SECURITY INVOKER"),
    ] {
        database.run(&format!("ALTER FUNCTION presence.heartbeat(uuid) {give}"));
        for _ in 0..3 {
            let beaten = watched.beat(&beat, Some(session));
            assert_eq!(beaten, ("ok".into(), false), "{give}");
        }
        database.run(&format!("ALTER FUNCTION presence.heartbeat(uuid) {take}"));
        watched.assert_takes_fast_path(&beat, Some(session), "ok");
    }
}

#[test]
fn calls_are_counted_where_functions_are_tracked() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    let session = client.start(Uuid::new_v4()).id;
    client.beat(session);
    client.beat(session);
    client.batch_execute("SET track_functions = 'all'").unwrap();
    for _ in 0..5 {
        client.beat(session);
    }
    drop(client);
    let mut client = database.connect();
    wait_until("five calls in the statistics", || {
        let sql = "SELECT calls FROM pg_stat_user_functions WHERE funcname = 'heartbeat'";
        let row = client.query_opt(sql, &[]).unwrap();
        row.is_some_and(|row| row.get::<_, i64>(0) == 5)
    });
}

#[test]
fn a_function_that_beats_for_row_after_row_keeps_no_memory() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    let session = client.start(Uuid::new_v4()).id;
    client.beat(session);
    // PostgreSQL starts each statement of such a function in a memory context that lasts as long as the caller's statement.
    client
        .batch_execute(
            "CREATE FUNCTION public.beaten(session uuid) RETURNS text LANGUAGE sql
             AS $$ SELECT presence.heartbeat($1); SELECT 'beaten' $$",
        )
        .unwrap();
    let pid = client.process_id();
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        kilobytes.unwrap().parse::<i64>().unwrap()
    };
    let many = "SELECT count(public.beaten($1)) FROM generate_series(1, $2::int)";
    client.query_one(many, &[&session, &1000]).unwrap();
    let before = peak();
    let counted: i64 = client.query_one(many, &[&session, &100_000]).unwrap().get(0);
    assert_eq!(counted, 100_000);
    let grown = peak() - before;
    assert!(grown < 20_000, "{grown} kB for 100,000 beats");
}
