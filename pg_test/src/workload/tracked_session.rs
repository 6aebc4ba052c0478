//! What a client knows of a session. A call without an acknowledgement is repeated until there is one.

use std::{sync::atomic::Ordering, time::Instant};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use postgres::{Client, Error};
use uuid::Uuid;

use super::Workload;

/// How much time a crash may lose the beats of. The flush interval is a second; a stalled machine is forgiven, a missing
/// flush is not.
const MAX_LOSS: TimeDelta = TimeDelta::seconds(8);

/// The silence after which a client beats before it does anything else, however slow its connection is.
const LATE: TimeDelta = TimeDelta::seconds(2);

#[derive(Clone, Copy)]
enum State {
    /// No login was sent yet, or one that may or may not be committed.
    Starting,
    Live(Uuid),
    /// A logout was sent that may or may not be committed.
    Ending(Uuid),
    Ended(Uuid),
}

pub struct TrackedSession {
    user: Uuid,
    token: String,
    /// Whether its user signs out only at the end.
    is_steady: bool,
    state: State,
    /// Whether a login was sent before.
    is_login_sent: bool,
    /// When the beats were sent that were acknowledged since the last crash, and the last one before it.
    beats: Vec<DateTime<Utc>>,
    /// The `last_activity` that the table had after the previous crash.
    in_table: Option<DateTime<Utc>>,
}

impl TrackedSession {
    pub fn new(user: Uuid, is_steady: bool) -> TrackedSession {
        TrackedSession {
            user,
            token: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
            is_steady,
            state: State::Starting,
            is_login_sent: false,
            beats: Vec::new(),
            in_table: None,
        }
    }

    /// Makes one random call and checks its result. Returns the id of a session that it has ended.
    pub fn step(&mut self, client: &mut Client, workload: &Workload, chance: u64) -> Result<Option<Uuid>, Error> {
        match self.state {
            State::Starting if chance.is_multiple_of(5) => roll_back_a_login(client, self.user)?,
            State::Starting => self.start(client, workload, chance)?,
            State::Live(id) if !self.is_steady && chance.is_multiple_of(8) => {
                self.state = State::Ending(id);
                return self.end(client, workload, id, chance).map(Some);
            }
            State::Live(_) if chance.is_multiple_of(7) => self.check_last_seen(client)?,
            State::Live(_) => self.beat(client, workload)?,
            State::Ending(id) => return self.end(client, workload, id, chance).map(Some),
            State::Ended(id) => {
                let answer = heartbeat(client, id)?;
                assert_ne!(answer, "ok", "a logout of {} is undone", self.user);
                // The next login is of the same user.
                if chance.is_multiple_of(4) {
                    *self = TrackedSession::new(self.user, false);
                }
            }
        }
        Ok(None)
    }

    /// Whether a beat is overdue.
    pub fn is_late(&self) -> bool {
        let last = self.beats.last();
        matches!(self.state, State::Live(_)) && last.is_none_or(|last| now() - last >= LATE)
    }

    /// Beats, if the session is live.
    pub fn beat(&mut self, client: &mut Client, workload: &Workload) -> Result<(), Error> {
        if let State::Live(id) = self.state {
            let (sent, began) = (now(), Instant::now());
            let answer = heartbeat(client, id)?;
            workload.record_latency(began.elapsed());
            assert_eq!(answer, "ok", "a login of {} is lost", self.user);
            self.record_beat(workload, sent);
            workload.beats.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Repeats a call that was not acknowledged. Returns the id of a session that it has ended.
    pub fn resolve(&mut self, client: &mut Client, workload: &Workload) -> Result<Option<Uuid>, Error> {
        match self.state {
            State::Starting if self.is_login_sent => self.start(client, workload, 0)?,
            State::Ending(id) => return self.end(client, workload, id, 0).map(Some),
            _ => {}
        }
        Ok(None)
    }

    /// The user, and whether they are live; certain only once [`resolved`](Self::resolve).
    pub fn expected(&self) -> (Uuid, bool) {
        (self.user, matches!(self.state, State::Live(_)))
    }

    /// Starts it by function or, the first time, by plain SQL: only the function resumes what may be committed already.
    fn start(&mut self, client: &mut Client, workload: &Workload, chance: u64) -> Result<(), Error> {
        let call = "SELECT session_id FROM presence.start_session(user_id => $1, session_token => $2)";
        let plain = "INSERT INTO presence.user_sessions (user_id, session_token)
                     VALUES ($1, presence.token_digest($2)) RETURNING id";
        let sql = if self.is_login_sent || chance.is_multiple_of(2) {
            call
        } else {
            plain
        };
        self.is_login_sent = true;
        let sent = now();
        let row = client.query_opt(sql, &[&self.user, &self.token])?;
        let row = row.unwrap_or_else(|| panic!("a login of {} returns nothing", self.user));
        self.state = State::Live(row.get(0));
        self.record_beat(workload, sent);
        workload.logins.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn end(&mut self, client: &mut Client, workload: &Workload, id: Uuid, chance: u64) -> Result<Uuid, Error> {
        let ways = [
            "SELECT presence.end_session($1)",
            "UPDATE presence.user_sessions SET is_active = false WHERE id = $1",
            "DELETE FROM presence.user_sessions WHERE id = $1",
        ];
        client.execute(ways[chance as usize / 8 % ways.len()], &[&id])?;
        self.state = State::Ended(id);
        workload.logouts.fetch_add(1, Ordering::Relaxed);
        Ok(id)
    }

    /// Ends it for good, in whatever state it is. Returns its id, unless it had ended before.
    pub fn sign_out(&mut self, client: &mut Client, workload: &Workload) -> Result<Option<Uuid>, Error> {
        if let State::Starting = self.state {
            self.start(client, workload, 0)?;
        }
        if self.is_steady {
            workload.record_sign_out(self.user);
        }
        match self.state {
            State::Live(id) | State::Ending(id) => self.end(client, workload, id, 0).map(Some),
            State::Starting | State::Ended(_) => Ok(None),
        }
    }

    fn record_beat(&mut self, workload: &Workload, sent: DateTime<Utc>) {
        self.beats.push(sent);
        if self.is_steady {
            workload.record_beat(self.user, sent);
        }
    }

    /// Asserts that `last_seen()` is not older than the last acknowledged beat.
    fn check_last_seen(&self, client: &mut Client) -> Result<(), Error> {
        let row = client.query_one("SELECT presence.last_seen($1)", &[&self.user])?;
        let seen: Option<DateTime<Utc>> = row.get(0);
        assert!(
            seen.as_ref() >= self.beats.last(),
            "{} was last seen at {seen:?} but has beaten at {:?}",
            self.user,
            self.beats.last()
        );
        Ok(())
    }

    /// Asserts that a crash has lost at most the beats of the last moments.
    pub fn check_after_crash(&mut self, client: &mut Client, workload: &Workload) -> Result<(), Error> {
        let State::Live(id) = self.state else {
            return Ok(());
        };
        let row = client.query_one("SELECT presence.is_online($1)", &[&self.user])?;
        assert!(row.get::<_, bool>(0), "{} is no longer online", self.user);
        let sql = "SELECT last_activity FROM presence.user_sessions WHERE id = $1";
        let row = client.query_opt(sql, &[&id])?;
        let row = row.unwrap_or_else(|| panic!("the row of {} is lost", self.user));
        let kept: DateTime<Utc> = row.get(0);
        assert!(
            self.in_table.replace(kept).is_none_or(|before| before <= kept),
            "last_activity of {} went back",
            self.user
        );
        let first = self.beats.iter().find(|beat| **beat > kept);
        if let (Some(first), Some(last)) = (first, self.beats.last()) {
            let lost = *last - first;
            assert!(lost < MAX_LOSS, "the beats of {lost} are lost");
            workload.record_loss(lost);
        }
        // From now on the server is held to what it has kept.
        self.beats.clear();
        Ok(())
    }
}

/// Logs in and rolls back, and asserts that nothing is left of it.
fn roll_back_a_login(client: &mut Client, user: Uuid) -> Result<(), Error> {
    let mut transaction = client.transaction()?;
    let sql = "SELECT session_id FROM presence.start_session(user_id => $1)";
    let id: Uuid = transaction.query_one(sql, &[&user])?.get(0);
    transaction.rollback()?;
    let answer = heartbeat(client, id)?;
    assert_eq!(answer, "unknown", "a login of {user} that was rolled back is there");
    Ok(())
}

fn heartbeat(client: &mut Client, session: Uuid) -> Result<String, Error> {
    let row = client.query_one("SELECT presence.heartbeat($1)", &[&session])?;
    Ok(row.get(0))
}

/// The time, with the server's precision.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}
