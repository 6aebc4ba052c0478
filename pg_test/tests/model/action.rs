//! The actions of a history's connections, on the server and in the reference, and the comparison of their results.

use postgres::types::{FromSql, ToSql};
use uuid::Uuid;

use crate::{
    reference::{New, Number, Seen, Time, Write, declared, hiding},
    run::{Run, same},
    server::{HALF_HOUR, Result, fail, half_hours},
    step::{Action, By, SOURCES, Update, Word},
};

/// The lifetime of a session, in half hours.
const LIFETIME: Time = 7 * 24 * 2;

impl Run<'_, '_> {
    pub fn action(&mut self, connection: usize, action: Action) -> Result {
        let reference = &mut self.reference;
        let is_open = reference.in_transaction(connection);
        let command = match action {
            Action::Begin if !is_open => {
                reference.begin(connection);
                "BEGIN"
            }
            Action::Savepoint if is_open => {
                reference.savepoint(connection);
                "SAVEPOINT s"
            }
            Action::RollbackToSavepoint if reference.has_savepoint(connection) => {
                reference.roll_back_to_savepoint(connection);
                "ROLLBACK TO s"
            }
            Action::ReleaseSavepoint if reference.has_savepoint(connection) => {
                reference.release_savepoint(connection);
                "RELEASE s"
            }
            Action::Commit if is_open => {
                reference.commit(connection);
                "COMMIT"
            }
            Action::Rollback if is_open => {
                reference.roll_back(connection);
                "ROLLBACK"
            }
            Action::Reconnect => {
                reference.reconnect(connection);
                return self.server.reconnect(connection);
            }
            _ => return self.run_in_transaction(connection, action),
        };
        self.server.connections[connection].batch_execute(command).map_err(fail)
    }

    fn run_in_transaction(&mut self, connection: usize, action: Action) -> Result {
        match action {
            Action::Start { user, half_hours } => self.start(connection, user, half_hours),
            Action::Insert { user, hours, is_active } => self.insert(connection, user, hours, is_active),
            Action::BeatAll => self.beat_all(connection),
            Action::EndUser { user } => self.end_user(connection, user),
            Action::Declare {
                user,
                source,
                word,
                text,
                half_hours,
            } => {
                // A declaration says something.
                let text = text.or((word == Word::None).then_some(0));
                self.declare(connection, user, source, (word, text), half_hours)
            }
            Action::ClearStatus { user, source } => self.clear_status(connection, user, source),
            Action::Hide { user, invisible } => self.hide(connection, user, invisible),
            Action::StartAgain { session }
            | Action::Beat { session, .. }
            | Action::BeatIdle { session, .. }
            | Action::End { session, .. }
            | Action::Release { session, .. }
            | Action::Bind { session, .. }
            | Action::Rotate { session }
            | Action::Update { session, .. }
            | Action::Delete { session }
                if !self.sessions.is_empty() =>
            {
                self.run_on_session(connection, session % self.sessions.len(), action)
            }
            _ => Ok(()),
        }
    }

    fn run_on_session(&mut self, connection: usize, number: Number, action: Action) -> Result {
        let seen = self.reference.seen(connection, number);
        let is_locked = self.reference.is_locked(connection, number);
        let (id, token) = self.sessions[number].clone();
        match action {
            Action::Beat { by, .. } => {
                let answer: String = match by {
                    By::Id => self.query(connection, "SELECT presence.heartbeat($1)", &[&id])?,
                    By::Token => self.query(connection, "SELECT presence.heartbeat_by_token($1)", &[&token])?,
                };
                self.reference.beat(number);
                same("the result of a beat", answer.as_str(), beat_result(seen))
            }
            Action::BeatIdle { by, .. } => {
                let answer: String = match by {
                    By::Id => self.query(connection, "SELECT presence.heartbeat_idle($1)", &[&id])?,
                    By::Token => self.query(connection, "SELECT presence.heartbeat_idle_by_token($1)", &[&token])?,
                };
                self.reference.beat_idle(number);
                same("the result of an idle beat", answer.as_str(), beat_result(seen))
            }
            Action::Release { half_hours: grace, .. } => {
                let sql = "SELECT presence.release_session($1, $2::text::interval)";
                let released: bool = self.query(connection, sql, &[&id, &half_hours(grace)])?;
                let expected = beat_result(seen) == "ok";
                if expected {
                    self.reference.release(connection, number, grace);
                }
                same("the result of a release", released, expected)
            }
            Action::Bind { half_hours: grace, .. } => {
                let sql = "SELECT presence.bind_sessions(ARRAY[$1::uuid], $2::text::interval) = '{}'";
                let bound: bool = self.query(connection, sql, &[&id, &half_hours(grace)])?;
                let expected = beat_result(seen) == "ok";
                if expected {
                    self.reference.bind(connection, number, grace);
                }
                same("whether a session is bound", bound, expected)
            }
            // It would wait for the other transaction.
            _ if is_locked => Ok(()),
            Action::End { by, .. } => {
                let ended: bool = match by {
                    By::Id => self.query(connection, "SELECT presence.end_session($1)", &[&id])?,
                    By::Token => self.query(connection, "SELECT presence.end_session_by_token($1)", &[&token])?,
                };
                let expected = seen.is_some_and(|seen| !seen.ended && !seen.expired);
                if expected {
                    self.reference.write(connection, number, Write::End);
                }
                same("the result of an end", ended, expected)
            }
            Action::StartAgain { .. } => match seen {
                Some(seen) if !seen.ended && !seen.expired && !self.reference.wrote(connection, number) => {
                    let sql = "SELECT session_id FROM presence.start_session(user_id => $1, session_token => $2)";
                    let user = self.users[seen.user];
                    let again: Uuid = self.query(connection, sql, &[&user, &token])?;
                    self.reference.beat(number);
                    same("the session of the same token", again, id)
                }
                _ => Ok(()),
            },
            Action::Rotate { .. } => match seen {
                // Not in a transaction: a token that may be rolled back is of no use.
                Some(seen) if !seen.ended && !seen.expired && !self.reference.in_transaction(connection) => {
                    self.reference.write(connection, number, Write::Touch);
                    self.sessions[number].1 =
                        self.query(connection, "SELECT presence.rotate_session_token($1)", &[&id])?;
                    Ok(())
                }
                _ => Ok(()),
            },
            Action::Update { what, .. } => self.update(connection, number, what, seen),
            _ => {
                let sql = "DELETE FROM presence.user_sessions WHERE id = $1";
                let deleted = self.execute(connection, sql, &[&id])?;
                if seen.is_some() {
                    self.reference.write(connection, number, Write::Delete);
                }
                same("rows deleted", deleted, u64::from(seen.is_some()))
            }
        }
    }

    fn start(&mut self, connection: usize, user: usize, lifetime: Option<Time>) -> Result {
        let sql = "SELECT session_id, session_token FROM presence.start_session(
                       user_id => $1, lifetime => $2::text::interval)";
        let row = self.server.connections[connection]
            .query_one(sql, &[&self.users[user], &lifetime.map(half_hours)])
            .map_err(fail)?;
        let now = self.reference.now();
        let new = New {
            user,
            is_active: true,
            last_activity: now,
            expires_at: now + lifetime.unwrap_or(LIFETIME),
        };
        self.add(connection, (row.get(0), row.get(1)), new);
        Ok(())
    }

    fn insert(&mut self, connection: usize, user: usize, hours: i64, is_active: bool) -> Result {
        let (id, token) = (Uuid::new_v4(), format!("token of {}", Uuid::new_v4()));
        let (now, owner) = (self.reference.now(), self.users[user]);
        let new = New {
            user,
            is_active,
            last_activity: now - hours * 2,
            expires_at: now + LIFETIME,
        };
        let sql = format!(
            "INSERT INTO presence.user_sessions (id, user_id, session_token, is_active, last_activity, expires_at)
             VALUES ($1, $2, $3, $4, {}, {})",
            self.clock(-hours * 2),
            self.clock(LIFETIME)
        );
        self.execute(connection, &sql, &[&id, &owner, &token, &is_active])?;
        self.add(connection, (id, token), new);
        Ok(())
    }

    fn add(&mut self, connection: usize, names: (Uuid, String), new: New) {
        let number = self.sessions.len();
        self.sessions.push(names);
        self.reference.write(connection, number, Write::Insert(new));
    }

    fn update(&mut self, connection: usize, number: Number, what: Update, seen: Option<Seen>) -> Result {
        let now = self.reference.now();
        let (change, write) = match what {
            Update::LastActivity => (format!("last_activity = {}", self.clock(0)), Write::Beat(now)),
            Update::IsActive(true) => ("is_active = true".into(), Write::Beat(now)),
            Update::IsActive(false) => ("is_active = false".into(), Write::End),
            Update::Metadata => ("metadata = '{\"a\": 1}'".into(), Write::Touch),
            Update::User(user) => (format!("user_id = '{}'", self.users[user]), Write::Move(user)),
        };
        let sql = format!("UPDATE presence.user_sessions SET {change} WHERE id = $1");
        let id = self.sessions[number].0;
        let updated = self.execute(connection, &sql, &[&id])?;
        if seen.is_some() {
            self.reference.write(connection, number, write);
        }
        same("rows updated", updated, u64::from(seen.is_some()))
    }

    fn beat_all(&mut self, connection: usize) -> Result {
        let ids: Vec<Uuid> = self.sessions.iter().map(|(id, _)| *id).collect();
        let missed: Vec<Uuid> = self.query(connection, "SELECT presence.heartbeat_many($1)", &[&ids])?;
        let mut expected = Vec::new();
        for (number, id) in ids.iter().enumerate() {
            if beat_result(self.reference.seen(connection, number)) != "ok" {
                expected.push(*id);
            }
            self.reference.beat(number);
        }
        same("beats not counted", missed, expected)
    }

    fn end_user(&mut self, connection: usize, user: usize) -> Result {
        let reference = &mut self.reference;
        let mut numbers = Vec::new();
        for number in 0..self.sessions.len() {
            let theirs = |seen: &Seen| seen.user == user && !seen.ended && !seen.expired;
            if reference.seen(connection, number).filter(theirs).is_some() {
                if reference.is_locked(connection, number) {
                    return Ok(());
                }
                numbers.push(number);
            }
        }
        for number in &numbers {
            reference.write(connection, *number, Write::End);
        }
        let sql = "SELECT presence.end_user_sessions($1)";
        let id = self.users[user];
        let ended: i32 = self.query(connection, sql, &[&id])?;
        same("sessions ended", ended, numbers.len() as i32)
    }

    fn declare(
        &mut self,
        connection: usize,
        user: usize,
        source: usize,
        (word, text): (Word, Option<u8>),
        valid_for: Option<Time>,
    ) -> Result {
        let number = declared(user, source);
        if self.reference.is_locked(connection, number) {
            return Ok(());
        }
        let label = match word {
            Word::None => None,
            Word::Busy => Some("dnd"),
            Word::Away => Some("away"),
            Word::Available => Some("available"),
        };
        let sql = "SELECT (presence.set_status($1, $2, NULL, $3::text::interval, $4, $5)).source = $4";
        let text_of = text.map(|text| format!("text {text}"));
        let (id, source) = (self.users[user], SOURCES[source]);
        let stored: bool = self.query(
            connection,
            sql,
            &[&label, &text_of, &valid_for.map(half_hours), &source, &id],
        )?;
        let until = valid_for.map(|time| self.reference.now() + time);
        let before = self.reference.declaration(connection, number);
        let declaration = self.reference.declare(before, word, text, until);
        self.reference
            .write(connection, number, Write::Declare(Some(declaration)));
        same("the row stored", stored, true)
    }

    fn clear_status(&mut self, connection: usize, user: usize, source: usize) -> Result {
        let number = declared(user, source);
        if self.reference.is_locked(connection, number) {
            return Ok(());
        }
        let now = self.reference.now();
        let before = self.reference.declaration(connection, number);
        let expected = before.is_some_and(|before| before.expires_at.is_none_or(|(at, _)| now < at));
        let (id, source) = (self.users[user], SOURCES[source]);
        let cleared: bool = self.query(connection, "SELECT presence.clear_status($1, $2)", &[&source, &id])?;
        self.reference.write(connection, number, Write::Declare(None));
        same("whether a status was cleared", cleared, expected)
    }

    fn hide(&mut self, connection: usize, user: usize, invisible: bool) -> Result {
        let number = hiding(user);
        // What shows of who returns waits for the transactions that are writing sessions.
        let waits = !invisible && (self.reference.in_transaction(connection) || self.reference.are_sessions_written());
        if waits || self.reference.is_locked(connection, number) {
            return Ok(());
        }
        let sql = "SELECT presence.set_invisible($1, user_id => $2)";
        self.execute(connection, sql, &[&invisible, &self.users[user].clone()])?;
        if invisible || self.reference.is_hidden(connection, user) {
            let now = self.reference.now();
            let write = if invisible { Write::Hide } else { Write::Show(now) };
            self.reference.write(connection, number, write);
        }
        let sql = "SELECT (presence.own_presence($1)).is_invisible";
        let id = self.users[user];
        let is_invisible: bool = self.query(connection, sql, &[&id])?;
        same("whether a user is hidden", is_invisible, invisible)
    }

    /// Returns the server's time plus this many half hours, as SQL.
    fn clock(&self, half_hours: Time) -> String {
        let microseconds = self.server.ahead + half_hours * HALF_HOUR;
        format!("clock_timestamp() + interval '{microseconds} us'")
    }

    fn query<T: for<'a> FromSql<'a>>(
        &mut self,
        connection: usize,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<T> {
        let row = self.server.connections[connection].query_one(sql, values);
        Ok(row.map_err(fail)?.get(0))
    }

    fn execute(&mut self, connection: usize, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        self.server.connections[connection].execute(sql, values).map_err(fail)
    }
}

/// Returns the expected result of a beat.
fn beat_result(seen: Option<Seen>) -> &'static str {
    match seen {
        None => "unknown",
        Some(seen) if seen.ended || seen.expired => "ended",
        Some(_) => "ok",
    }
}
