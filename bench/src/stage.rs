//! The PostgreSQL server that all contenders share, and what is loaded into it.

use std::{
    ops::Range,
    path::PathBuf,
    time::{Duration, Instant},
};

use pg_presence_test::{Cluster, Install, wait_until};
use postgres::Client;

use crate::{
    ids::{self, ID, OWNER, TOKEN},
    say,
    wire::{Parameter, Statement, Wire},
};

/// What differs from the defaults, for every contender alike.
const SETTINGS: &[(&str, &str)] = &[
    // The test harness, whose server this is, has these otherwise; here durability is PostgreSQL's own.
    ("fsync", "on"),
    ("wal_level", "replica"),
    // A machine with room for a million sessions has it for their tables, too.
    ("shared_buffers", "2GB"),
    // No contender is to pay for the checkpoint that another has made due.
    ("max_wal_size", "16GB"),
    ("checkpoint_timeout", "1h"),
    ("max_parallel_workers_per_gather", "2"),
    // Beats hit sessions by chance; nobody is to time out meanwhile, nor is a flush to fall into somebody's turn. The
    // chapters about the worker set their own.
    ("presence.active_timeout", "1d"),
    ("presence.flush_interval", "1h"),
];

/// A server with one database, in which pg_presence and its peers live.
pub struct Stage {
    pub cluster: Cluster,
    pub database: String,
    /// How many sessions each of them has.
    pub sessions: u64,
}

impl Stage {
    /// A server with room for as many sessions as said, and none yet.
    pub fn new(room: u64, settings: &[(&str, &str)]) -> Stage {
        let room = (room + room / 10).max(1000).to_string();
        let mut all = SETTINGS.to_vec();
        all.push(("presence.max_sessions", &room));
        all.extend(settings);
        let cluster = Cluster::own(&all);
        let database = cluster.database_with(Install::Presence).name.clone();
        let stage = Stage {
            cluster,
            database,
            sessions: 0,
        };
        stage.run(
            "CREATE ROLE bench_service LOGIN; CREATE ROLE bench_client LOGIN; CREATE ROLE bench_holder LOGIN;
             SELECT presence.grant_service('bench_service'), presence.grant_client('bench_client'),
                    presence.grant_holder('bench_holder')",
        );
        stage
    }

    /// Runs SQL as superuser.
    pub fn run(&self, sql: &str) {
        if let Err(error) = self.client().batch_execute(sql) {
            panic!("{sql}: {error:?}");
        }
    }

    /// Asks for one value.
    pub fn ask<T: postgres::types::FromSqlOwned>(&self, sql: &str) -> T {
        let row = self.client().query_one(sql, &[]);
        row.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
            .get(0)
    }

    pub fn client(&self) -> Client {
        self.cluster.connect(&self.database)
    }

    pub fn socket(&self) -> PathBuf {
        self.cluster.socket_directory().join(".s.PGSQL.5432")
    }

    pub fn wire(&self, role: &str) -> Wire {
        Wire::connect(&self.socket(), &self.database, role)
    }

    /// A prepared statement on a connection of its own.
    pub fn statement(
        &self,
        role: &str,
        before: &str,
        sql: &str,
        parameter: Option<Parameter>,
    ) -> Statement {
        let mut wire = self.wire(role);
        if !before.is_empty() {
            wire.run(before);
        }
        Statement::new(wire, sql, self.sessions, parameter)
    }

    /// Calls for all sessions, a thousand at a time.
    pub fn for_all(&self, wire: &mut Wire) {
        self.for_some(wire, 0..self.sessions);
    }

    /// Calls for these sessions, a thousand at a time.
    pub fn for_some(&self, wire: &mut Wire, sessions: Range<u64>) {
        let mut array = Vec::new();
        for from in sessions.clone().step_by(1000) {
            let numbers: Vec<u64> = (from..sessions.end.min(from + 1000)).collect();
            array.clear();
            ids::array(&numbers, &mut array);
            wire.execute(Some(&array));
        }
    }

    /// Shared memory of the extension, per session there is room for.
    pub fn memory_per_session(&self) -> f64 {
        self.ask(
            "SELECT sum(allocated_size)::float8 / current_setting('presence.max_sessions')::float8
               FROM pg_shmem_allocations WHERE name LIKE '%presence%'",
        )
    }

    /// Where the WAL ends.
    pub fn wal(&self) -> f64 {
        self.ask("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8")
    }

    /// Waits until all changes are written.
    pub fn wait_until_written(&self) {
        let mut client = self.client();
        wait_until("all changes to be written", || {
            let sql = "SELECT unwritten_users = 0 FROM presence.presence_stats";
            client.query_one(sql, &[]).expect("statistics").get(0)
        });
    }

    /// Loads live sessions until there are as many as said, past the triggers and the feed: how fast a login is is
    /// measured elsewhere. Returns how long the server then took from its start to having all in memory.
    pub fn load(&mut self, sessions: u64) -> Duration {
        let (from, to) = (self.sessions, sessions);
        let began = Instant::now();
        self.run(&format!(
            "ALTER TABLE presence.user_sessions DISABLE TRIGGER USER;
             INSERT INTO presence.user_sessions (id, user_id, auth_id, session_token)
             SELECT {ID}, {ID}, {OWNER}, presence.token_digest({TOKEN}) FROM generate_series({from}, {to} - 1) n;
             ALTER TABLE presence.user_sessions ENABLE TRIGGER USER;
             ALTER TABLE presence.user_sessions ENABLE ALWAYS TRIGGER presence_feed;
             ALTER TABLE presence.user_sessions ENABLE ALWAYS TRIGGER presence_feed_truncate;
             INSERT INTO presence.user_presence (user_id, status, is_online, last_seen, changed_at, seq)
             SELECT {ID}, 'active', true, now(), now(), 0 FROM generate_series({from}, {to} - 1) n"
        ));
        self.run("VACUUM ANALYZE presence.user_sessions, presence.user_presence");
        self.run("CHECKPOINT");
        self.sessions = sessions;
        let took = self.restart();
        say(&format!(
            "{sessions} sessions of ours loaded in {:.1} s",
            began.elapsed().as_secs_f64()
        ));
        took
    }

    /// Restarts the server; returns how long it was from the moment it answered to having all sessions in memory.
    pub fn restart(&self) -> Duration {
        self.cluster.restart(pg_presence_test::Shutdown::Fast);
        let began = Instant::now();
        let mut client = self.client();
        let mut stat = |sql: &str| -> bool {
            let row = client.query_one(sql, &[]).expect("statistics");
            row.get::<_, Option<bool>>(0).unwrap_or(false)
        };
        wait_until("all sessions in memory", || {
            stat("SELECT is_complete FROM presence.presence_stats")
        });
        let took = began.elapsed();
        wait_until("the worker to be done with its start", || {
            stat(
                "SELECT unwritten_users = 0 AND last_flush_at IS NOT NULL FROM presence.presence_stats",
            )
        });
        took
    }

    /// Makes the seed's table in a schema, with as many sessions as ours has.
    pub fn load_seed(&self, schema: &str, unlogged: &str) {
        let sessions = self.sessions;
        self.run(
            &include_str!("peers/seed.sql")
                .replace("{schema}", schema)
                .replace("{unlogged}", unlogged),
        );
        self.run(&format!(
            "INSERT INTO {schema}.user_sessions (id, user_id, auth_id, session_token)
             SELECT {ID}, {ID}, {OWNER}, {TOKEN} FROM generate_series(0, {sessions} - 1) n;
             ANALYZE {schema}.user_sessions"
        ));
    }

    /// Loads the peers' tables with as many sessions as ours has.
    pub fn load_peers(&self) {
        let began = Instant::now();
        let sessions = self.sessions;
        for (schema, unlogged) in [
            ("seed", ""),
            ("seed_unlogged", "UNLOGGED"),
            ("seed_notify", ""),
        ] {
            self.load_seed(schema, unlogged);
        }
        self.run(
            "CREATE TRIGGER tell AFTER INSERT OR UPDATE ON seed_notify.user_sessions
             FOR EACH ROW EXECUTE FUNCTION seed_notify.tell()",
        );
        self.run(include_str!("peers/plain.sql"));
        self.run(&format!(
            "INSERT INTO plain.presence
             SELECT {ID}, {ID}, now(), plain.minute() FROM generate_series(0, {sessions} - 1) n"
        ));
        self.run(include_str!("peers/zulip.sql"));
        // Realms of a thousand users.
        self.run(&format!(
            "INSERT INTO zulip.sequence SELECT n, 0 FROM generate_series(0, {sessions} / 1000) n;
             INSERT INTO zulip.presence
             SELECT {ID}, n / 1000, now() - interval '1 h', now() - interval '1 h', 0
               FROM generate_series(0, {sessions} - 1) n"
        ));
        self.run("VACUUM ANALYZE");
        self.run("CHECKPOINT");
        say(&format!(
            "the peers' tables loaded in {:.1} s",
            began.elapsed().as_secs_f64()
        ));
    }
}
