//! A server that lives through histories beside the reference.

use std::{
    fs,
    time::{Duration, Instant},
};

use pg_presence_test::{Cluster, Database, patience};
use proptest::test_runner::TestCaseError;

use crate::{
    connection::Connection,
    reference::{SHORT_TIMEOUT, Time},
    run::Run,
    step::{CONNECTIONS, Step},
};

pub type Result<T = ()> = std::result::Result<T, TestCaseError>;

pub const HALF_HOUR: i64 = 30 * 60 * 1_000_000;

/// A database, and the connections to it, used for many histories.
pub struct World<'c> {
    pub database: Database<'c>,
    pub connections: Vec<Connection>,
    pub reader: Connection,
    /// How far the server's clock is ahead, in microseconds.
    pub ahead: i64,
}

pub fn half_hours(number: Time) -> String {
    format!("{}s", number * 1800)
}

impl<'c> World<'c> {
    pub fn new(cluster: &'c Cluster, ahead: i64) -> World<'c> {
        let database = cluster.database();
        database.wait_until_served();
        World {
            connections: (0..CONNECTIONS)
                .map(|_| Connection::new(database.connect()))
                .collect(),
            reader: Connection::new(database.connect()),
            database,
            ahead,
        }
    }

    /// Lives through one history, and leaves nothing behind.
    pub fn live(&mut self, history: &[Step]) -> Result {
        let mut run = Run::new(self);
        let outcome = run.all(history).and_then(|()| self.clear());
        if outcome.is_err() {
            // Whatever is wrong here is not to show again in the next history.
            *self = World::new(self.database.cluster, self.ahead);
            self.set_timeout(SHORT_TIMEOUT)?;
        }
        outcome
    }

    fn clear(&mut self) -> Result {
        self.set_timeout(SHORT_TIMEOUT)?;
        self.reader
            .batch_execute("DELETE FROM presence.user_sessions")
            .map_err(fail)?;
        // A batch that the worker has taken from its queue is not written yet.
        let sql = "SELECT live_sessions + users_online + unwritten_users
                       + (SELECT count(*) FROM presence.user_presence WHERE is_online)
                   FROM presence.presence_stats";
        eventually(|| {
            let left = self.reader.query_one(sql, &[]).map_err(fail)?;
            Ok(left.get::<_, i64>(0) == 0)
        })
    }

    pub fn pass(&mut self, hours: i64) -> Result {
        self.ahead += hours * 2 * HALF_HOUR;
        let data = self.database.cluster.data();
        let new = data.join("presence_test.clock.new");
        fs::write(&new, self.ahead.to_string())?;
        fs::rename(new, data.join("presence_test.clock"))?;
        Ok(())
    }

    /// Returns when every connection and the worker have it.
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
            .batch_execute(&format!(
                "ALTER SYSTEM SET presence.active_timeout = '{value}'"
            ))
            .map_err(fail)?;
        self.reader
            .batch_execute("SELECT pg_reload_conf()")
            .map_err(fail)?;
        for client in self.connections.iter_mut().chain([&mut self.reader]) {
            eventually(|| has(client))?;
        }
        // The worker reads its settings before it looks at the sessions.
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
            return Err(TestCaseError::fail("waited in vain"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
