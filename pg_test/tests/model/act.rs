//! What the connections of a history do, on the server and in the reference, and what they are answered.

use postgres::types::{FromSql, ToSql};
use uuid::Uuid;

use crate::{
    reference::{New, Number, Seen, Time, Write},
    run::{Run, same},
    step::{Act, By, Update},
    world::{HALF_HOUR, Result, fail, half_hours},
};

/// The lifetime of a session, in half hours.
const LIFETIME: Time = 7 * 24 * 2;

impl Run<'_, '_> {
    pub fn act(&mut self, connection: usize, act: Act) -> Result {
        let reference = &mut self.reference;
        let is_open = reference.in_transaction(connection);
        let command = match act {
            Act::Begin if !is_open => {
                reference.begin(connection);
                "BEGIN"
            }
            Act::Savepoint if is_open => {
                reference.savepoint(connection);
                "SAVEPOINT s"
            }
            Act::RollbackToSavepoint if reference.has_savepoint(connection) => {
                reference.roll_back_to_savepoint(connection);
                "ROLLBACK TO s"
            }
            Act::ReleaseSavepoint if reference.has_savepoint(connection) => {
                reference.release_savepoint(connection);
                "RELEASE s"
            }
            Act::Commit if is_open => {
                reference.commit(connection);
                "COMMIT"
            }
            Act::Rollback if is_open => {
                reference.roll_back(connection);
                "ROLLBACK"
            }
            _ => return self.work(connection, act),
        };
        self.world.connections[connection]
            .batch_execute(command)
            .map_err(fail)
    }

    fn work(&mut self, connection: usize, act: Act) -> Result {
        match act {
            Act::Start { user, half_hours } => self.start(connection, user, half_hours),
            Act::Insert {
                user,
                hours,
                is_active,
            } => self.insert(connection, user, hours, is_active),
            Act::BeatAll => self.beat_all(connection),
            Act::EndUser { user } => self.end_user(connection, user),
            Act::StartAgain { session }
            | Act::Beat { session, .. }
            | Act::End { session, .. }
            | Act::Release { session, .. }
            | Act::Rotate { session }
            | Act::Update { session, .. }
            | Act::Delete { session }
                if !self.sessions.is_empty() =>
            {
                self.work_on(connection, session % self.sessions.len(), act)
            }
            _ => Ok(()),
        }
    }

    fn work_on(&mut self, connection: usize, number: Number, act: Act) -> Result {
        let seen = self.reference.seen(connection, number);
        let is_locked = self.reference.is_locked(connection, number);
        let (id, token) = self.sessions[number].clone();
        match act {
            Act::Beat { by, .. } => {
                let answer: String = match by {
                    By::Id => self.ask(connection, "SELECT presence.heartbeat($1)", &[&id])?,
                    By::Token => self.ask(
                        connection,
                        "SELECT presence.heartbeat_by_token($1)",
                        &[&token],
                    )?,
                };
                self.reference.beat(number);
                same("the answer to a beat", answer.as_str(), beat_answer(seen))
            }
            Act::Release {
                half_hours: grace, ..
            } => {
                let sql = "SELECT presence.release_session($1, $2::text::interval)";
                let released: bool = self.ask(connection, sql, &[&id, &half_hours(grace)])?;
                let expected = beat_answer(seen) == "ok";
                if expected {
                    self.reference.release(number, grace);
                }
                same("the answer to a release", released, expected)
            }
            // It would wait for the other's end.
            _ if is_locked => Ok(()),
            Act::End { by, .. } => {
                let ended: bool = match by {
                    By::Id => self.ask(connection, "SELECT presence.end_session($1)", &[&id])?,
                    By::Token => self.ask(
                        connection,
                        "SELECT presence.end_session_by_token($1)",
                        &[&token],
                    )?,
                };
                let expected = seen.is_some_and(|seen| !seen.ended && !seen.expired);
                if expected {
                    self.reference.write(connection, number, Write::End);
                }
                same("the answer to an end", ended, expected)
            }
            Act::StartAgain { .. } => match seen {
                Some(seen)
                    if !seen.ended
                        && !seen.expired
                        && !self.reference.wrote(connection, number) =>
                {
                    let sql = "SELECT session_id FROM presence.start_session(user_id => $1, session_token => $2)";
                    let user = self.users[seen.user];
                    let again: Uuid = self.ask(connection, sql, &[&user, &token])?;
                    self.reference.beat(number);
                    same("the session of the same token", again, id)
                }
                _ => Ok(()),
            },
            Act::Rotate { .. } => match seen {
                // A token that may be rolled back is nobody's to beat with.
                Some(seen)
                    if !seen.ended
                        && !seen.expired
                        && !self.reference.in_transaction(connection) =>
                {
                    self.reference.write(connection, number, Write::Touch);
                    self.sessions[number].1 = self.ask(
                        connection,
                        "SELECT presence.rotate_session_token($1)",
                        &[&id],
                    )?;
                    Ok(())
                }
                _ => Ok(()),
            },
            Act::Update { what, .. } => self.update(connection, number, what, seen),
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
        let row = self.world.connections[connection]
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

    fn update(
        &mut self,
        connection: usize,
        number: Number,
        what: Update,
        seen: Option<Seen>,
    ) -> Result {
        let now = self.reference.now();
        let (change, write) = match what {
            Update::LastActivity => (
                format!("last_activity = {}", self.clock(0)),
                Write::Beat(now),
            ),
            Update::IsActive(true) => ("is_active = true".into(), Write::Beat(now)),
            Update::IsActive(false) => ("is_active = false".into(), Write::End),
            Update::Metadata => ("metadata = '{\"a\": 1}'".into(), Write::Touch),
            Update::User(user) => (
                format!("user_id = '{}'", self.users[user]),
                Write::Move(user),
            ),
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
        let missed: Vec<Uuid> =
            self.ask(connection, "SELECT presence.heartbeat_many($1)", &[&ids])?;
        let mut expected = Vec::new();
        for (number, id) in ids.iter().enumerate() {
            if beat_answer(self.reference.seen(connection, number)) != "ok" {
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
        let ended: i32 = self.ask(connection, sql, &[&id])?;
        same("sessions ended", ended, numbers.len() as i32)
    }

    /// The server's time, so many half hours from now, in SQL.
    fn clock(&self, half_hours: Time) -> String {
        let microseconds = self.world.ahead + half_hours * HALF_HOUR;
        format!("clock_timestamp() + interval '{microseconds} us'")
    }

    fn ask<T: for<'a> FromSql<'a>>(
        &mut self,
        connection: usize,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<T> {
        let row = self.world.connections[connection].query_one(sql, values);
        Ok(row.map_err(fail)?.get(0))
    }

    fn execute(
        &mut self,
        connection: usize,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64> {
        self.world.connections[connection]
            .execute(sql, values)
            .map_err(fail)
    }
}

/// What a beat of a session is answered.
fn beat_answer(seen: Option<Seen>) -> &'static str {
    match seen {
        None => "unknown",
        Some(seen) if seen.ended || seen.expired => "ended",
        Some(_) => "ok",
    }
}
