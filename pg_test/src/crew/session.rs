//! What a client knows of a session. What was asked and not answered is asked again until it is.

use std::{sync::atomic::Ordering, time::Instant};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use postgres::{Client, Error};
use uuid::Uuid;

use super::Crew;

/// Of how much time beats may be lost in a crash. The flush interval is a second; a machine that stands still for
/// others is forgiven, a flush that does not come is not.
const LOSS: TimeDelta = TimeDelta::seconds(8);

/// After how much silence a client beats before it does anything else, however slowly it is answered.
const LATE: TimeDelta = TimeDelta::seconds(2);

#[derive(Clone, Copy)]
enum Known {
    /// Not asked for yet, or the login may have been committed or not.
    Starting,
    Live(Uuid),
    /// Asked to end; it may have or not.
    Ending(Uuid),
    Ended(Uuid),
}

pub struct Session {
    user: Uuid,
    token: String,
    /// Never signs out before the end.
    keeps: bool,
    known: Known,
    /// Whether its start was asked for before.
    asked: bool,
    /// When the beats were sent that were acknowledged since the last crash, and the last one before.
    beats: Vec<DateTime<Utc>>,
    /// The last activity that the table had after the crash before.
    in_table: Option<DateTime<Utc>>,
}

impl Session {
    pub fn new(user: Uuid, keeps: bool) -> Session {
        Session {
            user,
            token: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
            keeps,
            known: Known::Starting,
            asked: false,
            beats: Vec::new(),
            in_table: None,
        }
    }

    /// Asks for what comes next, and takes in the answer. Gives the id of a session that has ended by it.
    pub fn step(
        &mut self,
        client: &mut Client,
        crew: &Crew,
        chance: u64,
    ) -> Result<Option<Uuid>, Error> {
        match self.known {
            Known::Starting if chance.is_multiple_of(5) => give_up_a_login(client, self.user)?,
            Known::Starting => self.start(client, crew, chance)?,
            Known::Live(id) if !self.keeps && chance.is_multiple_of(8) => {
                self.known = Known::Ending(id);
                return self.end(client, crew, id, chance).map(Some);
            }
            Known::Live(_) if chance.is_multiple_of(7) => self.look(client)?,
            Known::Live(_) => self.keep(client, crew)?,
            Known::Ending(id) => return self.end(client, crew, id, chance).map(Some),
            Known::Ended(id) => {
                let answer = beat(client, id)?;
                assert_ne!(answer, "ok", "a logout of {} is undone", self.user);
                // The next login is of the same user.
                if chance.is_multiple_of(4) {
                    *self = Session::new(self.user, false);
                }
            }
        }
        Ok(None)
    }

    /// Whether it is high time for a beat.
    pub fn is_late(&self) -> bool {
        let last = self.beats.last();
        matches!(self.known, Known::Live(_)) && last.is_none_or(|last| now() - last >= LATE)
    }

    /// Beats, if it is live.
    pub fn keep(&mut self, client: &mut Client, crew: &Crew) -> Result<(), Error> {
        if let Known::Live(id) = self.known {
            let (sent, began) = (now(), Instant::now());
            let answer = beat(client, id)?;
            crew.has_taken(began.elapsed());
            assert_eq!(answer, "ok", "a login of {} is lost", self.user);
            self.has_beaten(crew, sent);
            crew.beats.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Asks again for what was asked and not answered. Gives the id of a session that has ended by it.
    pub fn resolve(&mut self, client: &mut Client, crew: &Crew) -> Result<Option<Uuid>, Error> {
        match self.known {
            Known::Starting if self.asked => self.start(client, crew, 0)?,
            Known::Ending(id) => return self.end(client, crew, id, 0).map(Some),
            _ => {}
        }
        Ok(None)
    }

    /// Whether its user is live, where nothing is left to be answered.
    pub fn known(&self) -> (Uuid, bool) {
        (self.user, matches!(self.known, Known::Live(_)))
    }

    /// By function or, the first time, by plain SQL: only the function resumes what may have been committed.
    fn start(&mut self, client: &mut Client, crew: &Crew, chance: u64) -> Result<(), Error> {
        let call =
            "SELECT session_id FROM presence.start_session(user_id => $1, session_token => $2)";
        let plain = "INSERT INTO presence.user_sessions (user_id, session_token)
                     VALUES ($1, presence.token_digest($2)) RETURNING id";
        let sql = if self.asked || chance.is_multiple_of(2) {
            call
        } else {
            plain
        };
        self.asked = true;
        let sent = now();
        let row = client.query_opt(sql, &[&self.user, &self.token])?;
        let row = row.unwrap_or_else(|| panic!("a login of {} gives nothing", self.user));
        self.known = Known::Live(row.get(0));
        self.has_beaten(crew, sent);
        crew.logins.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn end(
        &mut self,
        client: &mut Client,
        crew: &Crew,
        id: Uuid,
        chance: u64,
    ) -> Result<Uuid, Error> {
        let ways = [
            "SELECT presence.end_session($1)",
            "UPDATE presence.user_sessions SET is_active = false WHERE id = $1",
            "DELETE FROM presence.user_sessions WHERE id = $1",
        ];
        client.execute(ways[chance as usize / 8 % ways.len()], &[&id])?;
        self.known = Known::Ended(id);
        crew.logouts.fetch_add(1, Ordering::Relaxed);
        Ok(id)
    }

    /// Whatever is known of it: ends it for good. Gives its id, if it was not ended before.
    pub fn sign_out(&mut self, client: &mut Client, crew: &Crew) -> Result<Option<Uuid>, Error> {
        if let Known::Starting = self.known {
            self.start(client, crew, 0)?;
        }
        if self.keeps {
            crew.stops_beating(self.user);
        }
        match self.known {
            Known::Live(id) | Known::Ending(id) => self.end(client, crew, id, 0).map(Some),
            Known::Starting | Known::Ended(_) => Ok(None),
        }
    }

    fn has_beaten(&mut self, crew: &Crew, sent: DateTime<Utc>) {
        self.beats.push(sent);
        if self.keeps {
            crew.has_beaten(self.user, sent);
        }
    }

    /// What the server says of when the user was last seen is not behind what it has acknowledged.
    fn look(&self, client: &mut Client) -> Result<(), Error> {
        let row = client.query_one("SELECT presence.last_seen($1)", &[&self.user])?;
        let seen: Option<DateTime<Utc>> = row.get(0);
        assert!(
            seen.as_ref() >= self.beats.last(),
            "{} was last seen at {seen:?}, and has beaten at {:?}",
            self.user,
            self.beats.last()
        );
        Ok(())
    }

    /// Asserts that a crash has taken away nothing but the beats of the last moment.
    pub fn check(&mut self, client: &mut Client, crew: &Crew) -> Result<(), Error> {
        let Known::Live(id) = self.known else {
            return Ok(());
        };
        let row = client.query_one("SELECT presence.is_online($1)", &[&self.user])?;
        assert!(
            row.get::<_, bool>(0),
            "{} is not online any more",
            self.user
        );
        let sql = "SELECT last_activity FROM presence.user_sessions WHERE id = $1";
        let row = client.query_opt(sql, &[&id])?;
        let row = row.unwrap_or_else(|| panic!("the row of {} is lost", self.user));
        let kept: DateTime<Utc> = row.get(0);
        assert!(
            self.in_table
                .replace(kept)
                .is_none_or(|before| before <= kept),
            "the last activity of {} has gone back",
            self.user
        );
        let first = self.beats.iter().find(|beat| **beat > kept);
        if let (Some(first), Some(last)) = (first, self.beats.last()) {
            let lost = *last - first;
            assert!(lost < LOSS, "the beats of {lost} are lost");
            crew.has_lost(lost);
        }
        // What is lost is lost: from now on the server is held to what it has.
        self.beats.clear();
        Ok(())
    }
}

/// A login that is rolled back, of which nothing may stay.
fn give_up_a_login(client: &mut Client, user: Uuid) -> Result<(), Error> {
    let mut transaction = client.transaction()?;
    let sql = "SELECT session_id FROM presence.start_session(user_id => $1)";
    let id: Uuid = transaction.query_one(sql, &[&user])?.get(0);
    transaction.rollback()?;
    let answer = beat(client, id)?;
    assert_eq!(
        answer, "unknown",
        "a login of {user} that was rolled back is there"
    );
    Ok(())
}

fn beat(client: &mut Client, session: Uuid) -> Result<String, Error> {
    let row = client.query_one("SELECT presence.heartbeat($1)", &[&session])?;
    Ok(row.get(0))
}

/// The time, as exactly as the server has it.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}
