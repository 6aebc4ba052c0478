//! The server that runs histories beside the reference.

use std::time::{Duration, Instant};

use pg_presence_test::{Cluster, Database, Presence, patience};
use proptest::test_runner::TestCaseError;

use crate::{
    connection::Connection,
    reference::{SHORT_TIMEOUT, Time},
    run::Run,
    step::{CONNECTIONS, Step},
};

pub type Result<T = ()> = std::result::Result<T, TestCaseError>;

pub const HALF_HOUR: i64 = 30 * 60 * 1_000_000;

/// A database and the connections to it, reused for many histories.
pub struct ServerUnderTest<'c> {
    pub database: Database<'c>,
    pub connections: Vec<Connection>,
    pub reader: Connection,
    /// How far the server's clock is ahead, in microseconds.
    pub ahead: i64,
}

pub fn half_hours(number: Time) -> String {
    format!("{}s", number * 1800)
}

impl<'c> ServerUnderTest<'c> {
    pub fn new(cluster: &'c Cluster, ahead: i64) -> ServerUnderTest<'c> {
        let database = cluster.database();
        database.wait_until_served();
        ServerUnderTest {
            connections: (0..CONNECTIONS).map(|_| Connection::new(database.connect())).collect(),
            reader: Connection::new(database.connect()),
            database,
            ahead,
        }
    }

    /// Runs one history, and leaves nothing behind.
    pub fn run(&mut self, history: &[Step]) -> Result {
        let mut run = Run::new(self);
        let outcome = run.all(history).and_then(|()| self.clear());
        if outcome.is_err() {
            // A new database, so that this failure does not affect the next history.
            *self = ServerUnderTest::new(self.database.cluster, self.ahead);
            self.set_timeout(SHORT_TIMEOUT)?;
        }
        outcome
    }

    /// Ends a connection, waits until its process has exited, and makes another in its place.
    pub fn reconnect(&mut self, connection: usize) -> Result {
        let pid = self.connections[connection].process_id();
        self.connections[connection] = Connection::new(self.database.connect());
        eventually(|| {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
            let left: i64 = self.reader.query_one(sql, &[&pid]).map_err(fail)?.get(0);
            Ok(left == 0)
        })
    }

    fn clear(&mut self) -> Result {
        self.set_timeout(SHORT_TIMEOUT)?;
        self.reader
            .batch_execute("DELETE FROM presence.declared_statuses; DELETE FROM presence.user_sessions")
            .map_err(fail)?;
        // Users that the worker has dequeued may not be written yet.
        let sql = "SELECT live_sessions + users_online + unwritten_users
                       + (SELECT count(*) FROM presence.user_presence
                          WHERE is_online OR status_text IS NOT NULL OR status_expires_at IS NOT NULL)
                   FROM presence.presence_stats";
        eventually(|| {
            let left = self.reader.query_one(sql, &[]).map_err(fail)?;
            Ok(left.get::<_, i64>(0) == 0)
        })
    }

    pub fn pass(&mut self, hours: i64) -> Result {
        self.ahead += hours * 2 * HALF_HOUR;
        self.database.cluster.set_clock("clock", self.ahead);
        Ok(())
    }

    /// Changes the timeout, and waits until every connection and the worker use it.
    pub fn set_timeout(&mut self, timeout: Time) -> Result {
        let value = format!("{}min", timeout * 30);
        let sql = "SELECT extract(epoch FROM current_setting('presence.active_timeout')::interval)::bigint";
        let has = |client: &mut Connection| -> Result<bool> {
            let seconds: i64 = client.query_one(sql, &[]).map_err(fail)?.get(0);
            Ok(seconds == timeout * 1800)
        };
        if has(&mut self.reader)? {
            return Ok(());
        }
        self.reader
            .batch_execute(&format!("ALTER SYSTEM SET presence.active_timeout = '{value}'"))
            .map_err(fail)?;
        self.reader.batch_execute("SELECT pg_reload_conf()").map_err(fail)?;
        for client in self.connections.iter_mut().chain([&mut self.reader]) {
            eventually(|| has(client))?;
        }
        // In each turn the worker reads its settings before it sweeps the sessions.
        for _ in 0..2 {
            let before = self.last_tick()?;
            eventually(|| Ok(self.last_tick()? > before))?;
        }
        Ok(())
    }

    fn last_tick(&mut self) -> Result<i64> {
        let sql = "SELECT coalesce(extract(epoch FROM last_tick_at) * 1000000, 0)::bigint
                   FROM presence.presence_stats";
        Ok(self.reader.query_one(sql, &[]).map_err(fail)?.get(0))
    }
}

pub fn fail(error: postgres::Error) -> TestCaseError {
    TestCaseError::fail(format!("{error:?}"))
}

pub fn eventually(mut condition: impl FnMut() -> Result<bool>) -> Result {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > patience() {
            return Err(TestCaseError::fail("timed out waiting"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
