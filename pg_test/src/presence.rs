//! The functions of the schema `presence` as Rust methods, for tests about what they do rather than how they are called.

use postgres::GenericClient;
use uuid::Uuid;

use crate::wait::{wait_for, wait_until};

/// The id and token of a session.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: Uuid,
    pub token: String,
}

/// Connections and transactions call the functions by these methods.
pub trait Presence: GenericClient {
    /// Starts a session for a user, as a service does.
    fn start(&mut self, user: Uuid) -> Session {
        let sql = "SELECT session_id, session_token FROM presence.start_session(user_id => $1)";
        let row = self.query_one(sql, &[&user]).expect("a session");
        Session {
            id: row.get(0),
            token: row.get(1),
        }
    }

    /// Starts a session for the caller, as a client does.
    fn start_own(&mut self) -> Session {
        let row = self.query_one("SELECT session_id, session_token FROM presence.start_session()", &[]);
        let row = row.expect("a session");
        Session {
            id: row.get(0),
            token: row.get(1),
        }
    }

    /// The id of the process that serves this connection.
    fn process_id(&mut self) -> i32 {
        self.query_one("SELECT pg_backend_pid()", &[]).expect("a result").get(0)
    }

    fn beat(&mut self, session: Uuid) -> String {
        self.query_one("SELECT presence.heartbeat($1)", &[&session])
            .expect("a result")
            .get(0)
    }

    fn beat_by_token(&mut self, token: &str) -> String {
        self.query_one("SELECT presence.heartbeat_by_token($1)", &[&token])
            .expect("a result")
            .get(0)
    }

    fn beat_idle(&mut self, session: Uuid) -> String {
        self.query_one("SELECT presence.heartbeat_idle($1)", &[&session])
            .expect("a result")
            .get(0)
    }

    fn end(&mut self, session: Uuid) -> bool {
        self.query_one("SELECT presence.end_session($1)", &[&session])
            .expect("a result")
            .get(0)
    }

    /// Releases a session with a grace period, an interval as text.
    fn release(&mut self, session: Uuid, grace: &str) -> bool {
        let sql = "SELECT presence.release_session($1, $2::text::interval)";
        self.query_one(sql, &[&session, &grace]).expect("a result").get(0)
    }

    fn is_online(&mut self, user: Uuid) -> bool {
        self.query_one("SELECT presence.is_online($1)", &[&user])
            .expect("a result")
            .get(0)
    }

    fn user_status(&mut self, user: Uuid) -> String {
        self.query_one("SELECT presence.user_status($1)::text", &[&user])
            .expect("a result")
            .get(0)
    }

    fn online_users(&mut self) -> Vec<Uuid> {
        let rows = self
            .query("SELECT user_id FROM presence.online_users() ORDER BY 1", &[])
            .expect("rows");
        rows.iter().map(|row| row.get(0)).collect()
    }

    fn online_count(&mut self) -> i64 {
        self.query_one("SELECT presence.online_count()", &[])
            .expect("a number")
            .get(0)
    }

    /// Updates a session's row by plain SQL.
    fn update_session(&mut self, change: &str, session: Uuid) {
        let sql = format!("UPDATE presence.user_sessions SET {change} WHERE id = $1");
        let updated = self.execute(&sql, &[&session]);
        assert_eq!(updated.expect("an update"), 1, "{change}");
    }

    /// Returns whether a user is online as last written by the worker; none if it has written no row.
    fn written(&mut self, user: Uuid) -> Option<bool> {
        let sql = "SELECT is_online FROM presence.user_presence WHERE user_id = $1";
        let row = self.query_opt(sql, &[&user]).expect("a row");
        row.map(|row| row.get(0))
    }

    fn wait_for_written(&mut self, user: Uuid, online: bool) {
        wait_until(&format!("{user} written as {online}"), || {
            self.written(user) == Some(online)
        });
    }

    /// Lets calls wait for the locks of others for longer than any test takes, rather than for ten seconds.
    fn wait_for_locks(&mut self) {
        self.batch_execute("SET lock_timeout = '10 min'").expect("to set it");
    }

    /// Starts a session of a new user, which the worker has written as online. A worker that is stalled for the whole
    /// timeout finds nothing to write; then this tries another user.
    fn start_written(&mut self) -> (Uuid, Session) {
        wait_for("a login that is written", || {
            let user = Uuid::new_v4();
            let session = self.start(user);
            wait_until("the login to be written, or to time out", || {
                self.written(user) == Some(true) || !self.is_online(user)
            });
            (self.written(user) == Some(true)).then_some((user, session))
        })
    }

    /// Asserts that the numbers of the feed have no gaps and no repeats.
    fn assert_no_gaps(&mut self) {
        let sql = "SELECT count(*), coalesce(max(seq) - min(seq) + 1, 0) FROM presence.presence_changes";
        let row = self.query_one(sql, &[]).expect("the feed");
        let (rows, numbers): (i64, i64) = (row.get(0), row.get(1));
        assert_eq!(rows, numbers, "a gap or a repeat");
    }

    /// Sets the claims as a gateway does for a request; they stay until they are set again.
    fn claim(&mut self, claims: &str) {
        self.execute(
            "SELECT pg_catalog.set_config('request.jwt.claims', $1, false)",
            &[&claims],
        )
        .expect("to set the claims");
    }

    /// Sets the claims of this identity.
    fn act_for(&mut self, identity: Uuid) {
        self.claim(&format!(r#"{{"sub":"{identity}","role":"authenticated"}}"#));
    }
}

impl<C: GenericClient> Presence for C {}
