//! A run of one history: its steps, and what is compared after each.

use proptest::test_runner::TestCaseError;
use uuid::Uuid;

use crate::{
    reference::{LONG_TIMEOUT, Reference, SHORT_TIMEOUT, Shown},
    server::{Result, ServerUnderTest, eventually, fail},
    step::{Action, CONNECTIONS, Step, USERS},
};

/// A run of one history.
pub struct Run<'w, 'c> {
    pub server: &'w mut ServerUnderTest<'c>,
    pub reference: Reference,
    pub users: [Uuid; USERS],
    pub sessions: Vec<(Uuid, String)>,
    /// How often what is shown of each user has changed since the worker last caught up, and how many of these changes the feed has.
    pub transitions: [usize; USERS],
    pub changes: [usize; USERS],
    /// Each user's last status in the feed.
    pub in_feed: [String; USERS],
    pub live: [i64; USERS],
    pub shown: [Shown; USERS],
    pub cursor: (String, i64),
}

impl<'w, 'c> Run<'w, 'c> {
    pub fn new(server: &'w mut ServerUnderTest<'c>) -> Run<'w, 'c> {
        Run {
            cursor: server.database.cursor(),
            server,
            reference: Reference::new(),
            users: std::array::from_fn(|_| Uuid::new_v4()),
            sessions: Vec::new(),
            transitions: [0; USERS],
            changes: [0; USERS],
            in_feed: std::array::from_fn(|_| "inactive".into()),
            live: [0; USERS],
            shown: Reference::new().shown(),
        }
    }

    pub fn all(&mut self, history: &[Step]) -> Result {
        for (number, step) in history.iter().enumerate() {
            self.step(step).map_err(|error| at(number, step, error))?;
            // Another connection each time: an open transaction makes no difference to what it reads.
            self.compare(number % CONNECTIONS)
                .map_err(|error| at(number, step, error))?;
        }
        for connection in 0..CONNECTIONS {
            self.action(connection, Action::Commit)?;
            self.compare(connection)?;
        }
        self.settle()
    }

    fn step(&mut self, step: &Step) -> Result {
        match *step {
            Step::Action { connection, action } => self.action(connection, action),
            Step::Clock(hours) => {
                self.reference.pass(hours * 2);
                self.server.pass(hours)
            }
            Step::Timeout { long } => {
                let timeout = if long { LONG_TIMEOUT } else { SHORT_TIMEOUT };
                // A timeout that has not been noticed yet would be undone.
                self.settle()?;
                self.wait_for_sweep()?;
                self.reference.set_timeout(timeout);
                self.server.set_timeout(timeout)
            }
            Step::Settle => self.settle(),
            Step::KillWorker => {
                // Not soon after its start, as such a worker is not replaced at once.
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                           JOIN presence.presence_stats ON pid = worker_pid
                           WHERE backend_start < clock_timestamp() - interval '11 s'";
                self.server.reader.batch_execute(sql).map_err(fail)
            }
        }
    }

    /// Compares every way to read who is online with the reference, and the feed so far.
    fn compare(&mut self, connection: usize) -> Result {
        let (live, shown) = (self.reference.live(), self.reference.shown());
        for (user, (before, now)) in self.shown.iter().zip(&shown).enumerate() {
            // Since when nobody is there is none of it.
            let told = |shown: &Shown| (shown.status, shown.text, shown.expires_at);
            self.transitions[user] += usize::from(told(before) != told(now));
        }
        self.live = live;
        self.shown = shown;
        let sql = "WITH given AS (SELECT * FROM presence.presence_of($1))
            SELECT presence.online_count(),
                ARRAY(SELECT user_id FROM presence.online_users() ORDER BY 1),
                ARRAY(SELECT CASE WHEN is_online = presence.is_online(user_id) AND status = presence.user_status(user_id)
                                  THEN session_count::bigint ELSE -1 END FROM given),
                ARRAY(SELECT concat_ws(', ', status, status_text, CASE WHEN status_expires_at IS NOT NULL THEN 'expires' END,
                                       CASE WHEN idle_since IS NOT NULL THEN 'nobody there' END) FROM given),
                (SELECT count(*) FROM presence.online_users() o JOIN given g USING (user_id)
                 WHERE (o.status, o.status_text, o.status_expires_at, o.idle_since)
                     IS DISTINCT FROM (g.status, g.status_text, g.status_expires_at, g.idle_since))";
        let row = self.server.connections[connection]
            .query_one(sql, &[&&self.users[..]])
            .map_err(fail)?;
        let live = self.reference.live_to(connection);
        let mut online: Vec<Uuid> = (0..USERS)
            .filter(|user| live[*user] > 0)
            .map(|user| self.users[user])
            .collect();
        online.sort();
        same("live sessions of each user", row.get::<_, Vec<i64>>(2), live.to_vec())?;
        same(
            "what is shown of each user",
            row.get::<_, Vec<String>>(3),
            self.reference
                .shown_to(connection)
                .map(|shown| shown.in_words())
                .to_vec(),
        )?;
        same(
            "users of whom online_users() shows something else",
            row.get::<_, i64>(4),
            0,
        )?;
        same("online_count()", row.get::<_, i64>(0), online.len() as i64)?;
        same("online_users()", row.get(1), online)?;
        self.read_feed()
    }

    /// Waits until the worker has nothing left to do, and compares what it has written.
    fn settle(&mut self) -> Result {
        let sql = "SELECT live_sessions, users_online FROM presence.presence_stats
                   WHERE unwritten_users = 0 AND oldest_unwritten_ms IS NULL AND worker_pid IS NOT NULL";
        let sessions: i64 = self.live.iter().sum();
        let online: Vec<Uuid> = (0..USERS)
            .filter(|user| self.live[*user] > 0)
            .map(|user| self.users[user])
            .collect();
        let written = "SELECT count(*), count(*) FILTER (WHERE status::text = (
                               SELECT s FROM unnest($1::uuid[], $2::text[]) AS u (id, s) WHERE id = user_id)),
                           (SELECT count(*) FROM presence.user_presence w JOIN presence.presence_of($3) p USING (user_id)
                            WHERE (w.status, w.status_text, w.status_expires_at, w.idle_since)
                                IS DISTINCT FROM (p.status, p.status_text, p.status_expires_at, p.idle_since))
                       FROM presence.user_presence WHERE is_online";
        let statuses: Vec<&str> = self
            .shown
            .iter()
            .map(|shown| shown.status)
            .filter(|status| *status != "inactive")
            .collect();
        let users = self.users.to_vec();
        let mut last = String::new();
        let reader = &mut self.server.reader;
        let settled = eventually(|| {
            let known = reader.query(sql, &[]).map_err(fail)?;
            let known: Option<(i64, i64)> = known.first().map(|row| (row.get(0), row.get(1)));
            let row = reader.query_one(written, &[&online, &statuses, &users]).map_err(fail)?;
            let online_rows: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
            let users = online.len() as i64;
            last = format!("sessions and users in memory {known:?}, users written, rightly, otherwise {online_rows:?}");
            Ok(known == Some((sessions, users)) && online_rows == (users, users, 0))
        });
        settled.map_err(|_| {
            TestCaseError::fail(format!(
                "the worker does not reach {sessions} sessions of {online:?}: {last}"
            ))
        })?;
        self.compare_feed()
    }

    /// Waits until the worker has swept all sessions once more: nothing tells of those of a user who is hidden.
    fn wait_for_sweep(&mut self) -> Result {
        let sql = "SELECT last_tick_at::text FROM presence.presence_stats";
        let reader = &mut self.server.reader;
        let mut tick = || -> std::result::Result<Option<String>, TestCaseError> {
            Ok(reader.query_one(sql, &[]).map_err(fail)?.get(0))
        };
        // The one that is running may have begun before.
        for _ in 0..2 {
            let before = tick()?;
            eventually(|| Ok(tick()? != before))?;
        }
        Ok(())
    }

    /// Asserts that the feed ends with the current statuses, and has no more changes than there were.
    fn compare_feed(&mut self) -> Result {
        self.read_feed()?;
        for (n, changes) in self.changes.into_iter().enumerate() {
            let transitions = self.transitions[n];
            if changes > transitions {
                let sql = "SELECT string_agg(concat(reason, ': ', status), ', ' ORDER BY seq)
                           FROM presence.presence_changes WHERE user_id = $1";
                let row = self.server.reader.query_one(sql, &[&self.users[n]]).map_err(fail)?;
                let feed: String = row.get(0);
                let text = format!(
                    "{changes} changes in the feed of user {n}, who changed {transitions} times; in all {feed}"
                );
                return Err(TestCaseError::fail(text));
            }
            same(
                "the last status in the feed",
                self.in_feed[n].as_str(),
                self.shown[n].status,
            )?;
        }
        // What is declared of a user without a row is told once the user has a session, even one that nobody has seen.
        let sql = "SELECT user_id FROM presence.user_presence WHERE user_id = ANY ($1)";
        let rows = self.server.reader.query(sql, &[&&self.users[..]]).map_err(fail)?;
        let written: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        for (user, transitions) in self.users.iter().zip(&mut self.transitions) {
            *transitions = if written.contains(user) {
                0
            } else {
                (*transitions).min(1)
            };
        }
        self.changes = [0; USERS];
        Ok(())
    }

    /// Reads the feed from where it was last read, and asserts that its numbers have no gap, and that each change follows
    /// from the one before.
    fn read_feed(&mut self) -> Result {
        let sql = "SELECT seq, user_id, status::text, previous::text, reason FROM presence.changes_since($1, $2)";
        let (epoch, seq) = &mut self.cursor;
        let rows = self.server.reader.query(sql, &[seq, epoch]).map_err(fail)?;
        for row in rows {
            *seq += 1;
            same("the next number of the feed", row.get::<_, i64>(0), *seq)?;
            let (user, status, previous): (Uuid, String, Option<String>) = (row.get(1), row.get(2), row.get(3));
            let Some(n) = self.users.iter().position(|known| *known == user) else {
                return Err(TestCaseError::fail(format!("a change of an unknown user, {user}")));
            };
            let before = std::mem::replace(&mut self.in_feed[n], status.clone());
            same("the status before", previous.as_deref(), Some(before.as_str()))?;
            let reason: String = row.get(4);
            let fits = match (before.as_str(), status.as_str()) {
                (before, after) if before == after => reason == "declared",
                ("active", "idle") => ["idle", "declared"].contains(&reason.as_str()),
                ("idle", "active") => ["returned", "declared"].contains(&reason.as_str()),
                ("inactive", _) => ["started", "resumed"].contains(&reason.as_str()),
                (_, "inactive") => !["started", "resumed", "idle", "returned", "declared"].contains(&reason.as_str()),
                _ => reason == "declared",
            };
            same(&format!("whether {reason} fits {before} to {status}"), fits, true)?;
            self.changes[n] += 1;
        }
        Ok(())
    }
}

pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result {
    if found == expected {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{what}: {found:?}, not {expected:?}")))
}

fn at(number: usize, step: &Step, error: TestCaseError) -> TestCaseError {
    TestCaseError::fail(format!("step {}, {step:?}: {error}", number + 1))
}
