//! The PostgreSQL server that all variants share, and what is loaded into it.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pg_presence_test::{Cluster, Install, wait_until};

use crate::{
    connection::Connection,
    ids::{self, ID, OWNER, TOKEN},
    progress,
    sql_client::{Parameter, SqlClient},
    summary::count,
};

/// Settings that differ from PostgreSQL's defaults, the same for every variant.
const SETTINGS: &[(&str, &str)] = &[
    // PostgreSQL's defaults, which the test harness changes.
    ("fsync", "on"),
    ("wal_level", "replica"),
    // A machine with enough memory for a million sessions has enough for their tables, too.
    ("shared_buffers", "2GB"),
    // No variant pays for a checkpoint that another made due.
    ("max_wal_size", "16GB"),
    ("checkpoint_timeout", "1h"),
    ("max_parallel_workers_per_gather", "2"),
    // Heartbeats hit random sessions: none may time out meanwhile, and no flush may fall into a turn. Scenarios that
    // involve the worker override these.
    ("presence.active_timeout", "1d"),
    ("presence.flush_interval", "1h"),
];

/// A server with one database, which holds pg_presence and the tables of the alternatives.
pub struct Server {
    pub cluster: Cluster,
    pub database: String,
    /// How many sessions each of them holds.
    pub sessions: u64,
}

impl Server {
    /// Starts a server without sessions; `presence.max_sessions` is a tenth above `capacity`.
    pub fn new(capacity: u64, settings: &[(&str, &str)]) -> Server {
        Server::start(capacity, settings, Cluster::private)
    }

    /// The same of another build of the extension, which is with a PostgreSQL of its own in this directory.
    pub fn of_build(programs: &Path, capacity: u64) -> Server {
        Server::start(capacity, &[], |settings| Cluster::private_of(programs, settings))
    }

    fn start(capacity: u64, settings: &[(&str, &str)], cluster: impl FnOnce(&[(&str, &str)]) -> Cluster) -> Server {
        let capacity = (capacity + capacity / 10).max(1000).to_string();
        let mut all = SETTINGS.to_vec();
        all.push(("presence.max_sessions", &capacity));
        all.extend(settings);
        let cluster = cluster(&all);
        let database = cluster.database_with(Install::Presence).name.clone();
        let server = Server {
            cluster,
            database,
            sessions: 0,
        };
        server.run(
            "CREATE ROLE bench_service LOGIN; CREATE ROLE bench_client LOGIN; CREATE ROLE bench_holder LOGIN;
             SELECT presence.grant_service('bench_service'), presence.grant_client('bench_client'),
                    presence.grant_holder('bench_holder')",
        );
        server
    }

    /// Runs SQL as a superuser.
    pub fn run(&self, sql: &str) {
        if let Err(error) = self.superuser().batch_execute(sql) {
            panic!("{sql}: {error:?}");
        }
    }

    /// Returns the single value of a query that a superuser runs.
    pub fn value<T: postgres::types::FromSqlOwned>(&self, sql: &str) -> T {
        let row = self.superuser().query_one(sql, &[]);
        row.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    pub fn superuser(&self) -> postgres::Client {
        self.cluster.connect(&self.database)
    }

    pub fn socket(&self) -> PathBuf {
        self.cluster.socket_directory().join(".s.PGSQL.5432")
    }

    pub fn connect(&self, role: &str) -> Connection {
        Connection::connect(&self.socket(), &self.database, role)
    }

    /// Connects a client that executes a statement over and over; `setup` is run once, unless empty.
    pub fn client(&self, role: &str, setup: &str, sql: &str, parameter: Option<Parameter>) -> SqlClient {
        let mut connection = self.connect(role);
        if !setup.is_empty() {
            connection.run(setup);
        }
        SqlClient::new(connection, sql, self.sessions, parameter)
    }

    /// Executes the connection's statement for all sessions, a thousand ids per call.
    pub fn execute_for_all(&self, connection: &mut Connection) {
        self.execute_for(connection, 0..self.sessions);
    }

    /// Executes the connection's statement for these sessions, a thousand ids per call.
    pub fn execute_for(&self, connection: &mut Connection, sessions: Range<u64>) {
        let mut array = Vec::new();
        for from in sessions.clone().step_by(1000) {
            let numbers: Vec<u64> = (from..sessions.end.min(from + 1000)).collect();
            array.clear();
            ids::array(&numbers, &mut array);
            connection.execute(Some(&array));
        }
    }

    /// Hides one of ten users, and waits until that is written.
    pub fn hide_a_tenth(&self) {
        let mut connection = self.connect("bench_service");
        connection.prepare("SELECT presence.set_invisible(true, user_id => id) FROM unnest($1::uuid[]) id");
        let users: Vec<u64> = (0..self.sessions).step_by(10).collect();
        for some in users.chunks(1000) {
            let mut array = Vec::new();
            ids::array(some, &mut array);
            connection.execute(Some(&array));
        }
        self.wait_until_written();
    }

    /// Returns the extension's shared memory per session of its capacity, in bytes.
    pub fn memory_per_session(&self) -> f64 {
        self.value(
            "SELECT sum(allocated_size)::float8 / current_setting('presence.max_sessions')::float8
               FROM pg_shmem_allocations WHERE name LIKE '%presence%'",
        )
    }

    /// Returns the WAL insert position, in bytes.
    pub fn wal_position(&self) -> f64 {
        self.value("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8")
    }

    /// Waits until all changes are written.
    pub fn wait_until_written(&self) {
        let mut client = self.superuser();
        wait_until("all changes to be written", || {
            let sql = "SELECT unwritten_users = 0 FROM presence.presence_stats";
            client.query_one(sql, &[]).expect("statistics").get(0)
        });
    }

    /// Adds live sessions up to a total of `sessions`, bypassing the triggers and the feed, then restarts the server.
    /// Returns how long it took from accepting connections to having all sessions in memory.
    pub fn load(&mut self, sessions: u64) -> Duration {
        let (from, to) = (self.sessions, sessions);
        let began = Instant::now();
        self.run(&format!(
            "ALTER TABLE presence.user_sessions DISABLE TRIGGER USER;
             INSERT INTO presence.user_sessions (id, user_id, auth_id, session_token)
             SELECT {ID}, {ID}, {OWNER}, presence.token_digest({TOKEN}) FROM generate_series({from}, {to} - 1) n;
             ALTER TABLE presence.user_sessions ENABLE TRIGGER USER;
             ALTER TABLE presence.user_sessions ENABLE ALWAYS TRIGGER presence_capture;
             ALTER TABLE presence.user_sessions ENABLE ALWAYS TRIGGER presence_capture_truncate;
             INSERT INTO presence.user_presence (user_id, status, is_online, last_seen, changed_at, seq)
             SELECT {ID}, 'active', true, now(), now(), 0 FROM generate_series({from}, {to} - 1) n"
        ));
        self.run("VACUUM ANALYZE presence.user_sessions, presence.user_presence");
        self.run("CHECKPOINT");
        self.sessions = sessions;
        let took = self.restart();
        progress(&format!(
            "loaded {} in {:.1} s",
            count(sessions, "session"),
            began.elapsed().as_secs_f64()
        ));
        took
    }

    /// Restarts the server; returns how long it took from accepting connections to having all sessions in memory.
    pub fn restart(&self) -> Duration {
        self.cluster.restart(pg_presence_test::Shutdown::Fast);
        let began = Instant::now();
        let mut client = self.superuser();
        let mut stat = |sql: &str| -> bool {
            let row = client.query_one(sql, &[]).expect("statistics");
            row.get::<_, Option<bool>>(0).unwrap_or(false)
        };
        wait_until("all sessions in memory", || {
            stat("SELECT is_complete FROM presence.presence_stats")
        });
        let took = began.elapsed();
        wait_until("the worker to finish its start", || {
            stat("SELECT unwritten_users = 0 AND last_flush_at IS NOT NULL FROM presence.presence_stats")
        });
        took
    }

    /// Creates the baseline table in a schema, with as many sessions as pg_presence holds.
    pub fn load_baseline(&self, schema: &str, unlogged: &str) {
        let sessions = self.sessions;
        self.run(
            &include_str!("alternatives/baseline.sql")
                .replace("{schema}", schema)
                .replace("{unlogged}", unlogged),
        );
        self.run(&format!(
            "INSERT INTO {schema}.user_sessions (id, user_id, auth_id, session_token)
             SELECT {ID}, {ID}, {OWNER}, {TOKEN} FROM generate_series(0, {sessions} - 1) n;
             ANALYZE {schema}.user_sessions"
        ));
    }

    /// Creates the tables of the alternatives, with as many sessions as pg_presence holds.
    pub fn load_alternatives(&self) {
        let began = Instant::now();
        let sessions = self.sessions;
        for (schema, unlogged) in [
            ("baseline", ""),
            ("baseline_unlogged", "UNLOGGED"),
            ("baseline_notify", ""),
        ] {
            self.load_baseline(schema, unlogged);
        }
        self.run(
            "CREATE TRIGGER notify_change AFTER INSERT OR UPDATE ON baseline_notify.user_sessions
             FOR EACH ROW EXECUTE FUNCTION baseline_notify.notify_change()",
        );
        self.run(include_str!("alternatives/tuned.sql"));
        self.run(&format!(
            "INSERT INTO tuned.presence
             SELECT {ID}, {ID}, now(), tuned.minute() FROM generate_series(0, {sessions} - 1) n"
        ));
        self.run(include_str!("alternatives/zulip.sql"));
        // Realms of 1,000 users.
        self.run(&format!(
            "INSERT INTO zulip.sequence SELECT n, 0 FROM generate_series(0, {sessions} / 1000) n;
             INSERT INTO zulip.presence
             SELECT {ID}, n / 1000, now() - interval '1 h', now() - interval '1 h', 0
               FROM generate_series(0, {sessions} - 1) n"
        ));
        self.run("VACUUM ANALYZE");
        self.run("CHECKPOINT");
        progress(&format!(
            "loaded the tables of the alternatives in {:.1} s",
            began.elapsed().as_secs_f64()
        ));
    }
}
