//! Clients that connect, start, beat and end sessions all the time, and get answers or documented errors.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::Duration,
};

use pg_presence_test::StopOnDrop;
use postgres::{Client, Row, types::ToSql};
use uuid::Uuid;

use crate::place::{Actor, Place};

/// Sessions of one connection.
const SESSIONS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(30);

/// Runs `walk` while clients do what they always do.
pub fn under_load<R>(place: &Place, walk: impl FnOnce() -> R) -> R {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = StopOnDrop(&over);
        let clients: Vec<_> = [Actor::Service, Actor::Service, Actor::Client]
            .into_iter()
            .map(|actor| {
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        // A lost connection is another one's beginning.
                        let _ = visit(place, actor, over);
                    }
                })
            })
            .collect();
        let result = walk();
        drop(stop);
        for client in clients {
            if let Err(panic) = client.join() {
                std::panic::resume_unwind(panic);
            }
        }
        result
    })
}

/// The connection is lost, or the names are no longer those that it knows.
struct Lost;

struct Visitor<'p, 'c> {
    place: &'p Place<'c>,
    client: Client,
    schema: String,
    generation: u64,
}

fn visit(place: &Place, actor: Actor, over: &AtomicBool) -> Result<(), Lost> {
    let generation = place.generation();
    let mut visitor = Visitor {
        place,
        client: place.connect_as(actor),
        schema: place.schema(),
        generation,
    };
    let mut holder = Visitor {
        place,
        client: place.connect_as(Actor::Holder),
        schema: visitor.schema.clone(),
        generation,
    };
    for number in 0..SESSIONS {
        if over.load(Ordering::Relaxed) {
            return Ok(());
        }
        let user = Uuid::new_v4();
        let started = match actor {
            Actor::Client => {
                let claims = format!(r#"{{"sub":"{user}"}}"#);
                visitor.call("SELECT set_config('request.jwt.claims', $1, false)", &[&claims])?;
                visitor.call("SELECT session_id, session_token FROM {s}.start_session()", &[])?
            }
            _ => visitor.call("SELECT session_id, session_token FROM {s}.start_session($1)", &[&user])?,
        };
        let Some(started) = started else {
            sleep(PAUSE * 3);
            continue;
        };
        let (session, token): (Uuid, String) = (started.get(0), started.get(1));
        for _ in 0..3 {
            // The session may have been restored away.
            visitor.beat("SELECT {s}.heartbeat($1)", &[&session])?;
            holder.beat("SELECT {s}.heartbeat_by_token($1)", &[&token])?;
            visitor.call("SELECT {s}.is_online($1), {s}.last_seen($1)", &[&user])?;
            sleep(PAUSE);
        }
        match number % 4 {
            0 => visitor.call("SELECT {s}.end_session($1)", &[&session])?,
            1 => holder.call("SELECT {s}.end_session_by_token($1)", &[&token])?,
            2 => visitor.call("SELECT {s}.release_session($1, '1 s')", &[&session])?,
            // Left to time out.
            _ => None,
        };
        if actor == Actor::Service && number == 0 {
            visitor.call("SELECT count(*) FROM {s}.online_users()", &[])?;
            visitor.call("SELECT {s}.forget_user($1)", &[&user])?;
        }
    }
    Ok(())
}

impl Visitor<'_, '_> {
    /// Calls a function, and returns its row, or none where a documented error says why not.
    fn call(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Lost> {
        let sql = sql.replace("{s}", &self.schema);
        let error = match self.client.query_one(&sql, parameters) {
            Ok(row) => return Ok(Some(row)),
            Err(error) => error,
        };
        if self.client.is_closed() || self.place.generation() != self.generation {
            return Err(Lost);
        }
        let Some(error) = error.as_db_error() else {
            return Err(Lost);
        };
        match error.code().code() {
            // Section 6's: a definition that differs, nobody's right, somebody's lock.
            "55000" | "42501" | "55P03" => {
                let says_more = error.detail().or(error.hint()).is_some();
                assert!(
                    says_more || error.code().code() == "42501",
                    "neither detail nor hint: {sql}: {error:?}"
                );
            }
            // Where a lock is taken for long, or two wait for each other.
            "40P01" | "57014" => {}
            // The owner's own doing: a constraint, a trigger, a publication.
            "23502" | "23514" | "23503" | "42P10" | "P0001" => {}
            // Terminated, because it was in the way, or while the database is renamed.
            "57P01" => return Err(Lost),
            // The schema has another name by now.
            "3F000" | "42883" => return Err(Lost),
            _ => panic!("{sql}: {error:?}"),
        }
        Ok(None)
    }

    fn beat(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<(), Lost> {
        if let Some(row) = self.call(sql, parameters)? {
            let answer: String = row.get(0);
            assert!(["ok", "ended", "unknown"].contains(&answer.as_str()), "{answer}");
        }
        Ok(())
    }
}
