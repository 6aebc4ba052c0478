//! The walk: one careless step after another, and what is checked after each.

use std::time::Instant;

use pg_presence_test::{Rng, wait_until};
use postgres::error::SqlState;
use uuid::Uuid;

use crate::{
    attempt::ATTEMPTS,
    checks::{self, ServerWatch},
    damage::{DAMAGES, Damage},
    dump,
    listener::Listener,
    place::{Actor, Place},
};

mod mending;

/// After so many damages somebody looks at health.
const MOST_DAMAGES: usize = 5;

/// Checks that fail until they are mended, whatever else is done. A grant may be undone by another.
const DEFINITIONS: [&str; 6] = [
    "columns",
    "not_null",
    "constraints",
    "indexes",
    "row_security",
    "triggers",
];

/// What a walk has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Logins and logouts that came through the feed and were notified.
    pub told: u64,
    /// Attempts that were refused.
    pub refused: u64,
}

/// A damage that has been done, in the step with this number.
struct Done {
    damage: &'static Damage,
    step: u64,
}

/// A login that was not told, as a damage has stopped the feed.
struct Untold {
    user: Uuid,
    session: Uuid,
}

pub struct Walk<'p, 'c> {
    place: &'p Place<'c>,
    rng: Rng,
    step: u64,
    present: Vec<Done>,
    untold: Vec<Untold>,
    listener: Listener,
    server: ServerWatch,
    counts: Counts,
    /// What has been done, to be printed if a check fails.
    history: Vec<String>,
    began: Instant,
}

impl<'p, 'c> Walk<'p, 'c> {
    pub fn new(place: &'p Place<'c>, rng: Rng) -> Walk<'p, 'c> {
        let mut walk = Walk {
            place,
            rng,
            step: 0,
            present: Vec::new(),
            untold: Vec::new(),
            listener: Listener::new(place),
            server: ServerWatch::new(place.cluster),
            counts: Counts::default(),
            history: Vec::new(),
            began: Instant::now(),
        };
        walk.wait_until_healthy();
        walk.check();
        walk
    }

    /// Does something, and checks that all is as it should be.
    pub fn step(&mut self) {
        self.step += 1;
        match self.rng.below(20) {
            _ if self.present.len() >= MOST_DAMAGES => self.mend(),
            0..=11 => self.damage(),
            12 | 13 => self.undo(),
            14..=16 => self.attempt(),
            17 => self.rename(),
            18 => self.restore(),
            _ => self.mend(),
        }
        self.check();
    }

    /// Mends everything, and checks a last time.
    pub fn finish(mut self) -> Counts {
        self.mend();
        self.check();
        self.counts
    }

    fn log(&mut self, line: String) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.history.push(format!("{} ({seconds:.1} s): {line}", self.step));
    }

    fn any(&self, property: impl Fn(&Damage) -> bool) -> bool {
        self.present.iter().any(|done| property(done.damage))
    }

    /// Runs statements as somebody, again where another transaction was in the way.
    fn run(&mut self, actor: Actor, sql: &str) -> Result<(), postgres::Error> {
        let mut client = self.place.session(actor);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let result = client.batch_execute(sql);
            match &result {
                Err(error) if is_conflict(error) && attempts < 10 => {}
                _ => {
                    let outcome = match &result {
                        Ok(()) => String::new(),
                        Err(error) => format!(" -- {error}"),
                    };
                    self.log(format!("as {}: {sql};{outcome}", self.place.role(actor)));
                    return result;
                }
            }
        }
    }

    /// Does one damage. Where others are there already, what it refers to may have another name.
    fn damage(&mut self) {
        let damage = self.rng.pick(DAMAGES);
        let sql = self.place.fill(damage.sql, self.step);
        if let Err(error) = self.run(damage.by, &sql) {
            let is_elsewhere = !self.present.is_empty() && error.code().is_some_and(is_of_another_damage);
            assert!(is_elsewhere, "{sql}: {error:?}");
            return;
        }
        let step = self.step;
        // A user whom the worker cannot write, where it does not try to; a grant by who owns nothing any more, of which
        // PostgreSQL only warns.
        let has_no_effect = damage.checks == "unwritable" && self.any(|other| other.stops)
            || damage.sql.starts_with("GRANT") && self.any(|other| other.checks.ends_with("owner"));
        self.present.push(Done { damage, step });
        if !damage.checks.is_empty() && !has_no_effect {
            let mut last = Vec::new();
            wait_until(&format!("health names {}: {sql}", damage.checks), || {
                last = self.failing();
                last.iter()
                    .any(|row| damage.checks.split(' ').any(|check| check == row.name))
            });
        }
    }

    /// Undoes one damage without health's help.
    fn undo(&mut self) {
        if self.present.is_empty() {
            return;
        }
        let chosen = self.rng.below(self.present.len() as u64) as usize;
        if self.present[chosen].damage.undo.is_empty() {
            return;
        }
        let done = self.present.remove(chosen);
        if !self.undo_one(&done) {
            self.present.push(done);
        }
    }

    /// Returns whether that was possible.
    fn undo_one(&mut self, done: &Done) -> bool {
        if done.damage.undo.is_empty() {
            return true;
        }
        let sql = self.place.fill(done.damage.undo, done.step);
        match self.run(done.damage.by, &sql) {
            Ok(()) => true,
            Err(error) => {
                assert!(error.code().is_some_and(is_of_another_damage), "{sql}: {error:?}");
                false
            }
        }
    }

    /// Tries what must be refused.
    fn attempt(&mut self) {
        for _ in 0..5 {
            let (actors, sql) = self.rng.pick(ATTEMPTS);
            let actor = *self.rng.pick(actors);
            let owns_all = self.place.role(Actor::Owner) == self.place.role(Actor::DatabaseOwner);
            if actor == Actor::DatabaseOwner && owns_all || self.any(|damage| damage.opens) {
                continue;
            }
            let sql = self.place.fill(sql, self.step);
            self.log(format!("as {}, to be refused: {sql};", self.place.role(actor)));
            let mut client = self.place.session(actor);
            checks::assert_refused(&mut client, &format!("BEGIN; {sql}; COMMIT"), &self.place.role(actor));
            self.counts.refused += 1;
        }
    }

    fn rename(&mut self) {
        let renamed = if self.rng.below(2) == 0 {
            let step = self.step;
            let name = *self.rng.pick(&["presence", "\"Who's here\"", "\"100 %\"", "p"]);
            let name = if name == self.place.schema() {
                format!("p{step}")
            } else {
                name.to_owned()
            };
            self.place.rename_schema(&name)
        } else {
            let name = format!(
                "{}_{}",
                self.place.names().database.split('_').next().unwrap_or("d"),
                self.step
            );
            let renamed = self.place.rename_database(&name);
            self.listener = Listener::new(self.place);
            renamed
        };
        self.log(renamed);
    }

    /// Dumps the data, and puts it back.
    fn restore(&mut self) {
        let disable = self.rng.below(3) == 0;
        let dumped = dump::dump(self.place, disable);
        self.log(format!(
            "pg_dump --data-only{}, TRUNCATE, psql",
            if disable { " --disable-triggers" } else { "" }
        ));
        let script = match dumped {
            Ok(script) if !self.any(|damage| damage.refuses || damage.stops) => script,
            Ok(_) => return,
            Err(message) => return assert!(!self.present.is_empty(), "pg_dump: {message}"),
        };
        match dump::restore(self.place, &script) {
            Ok(()) if disable => {
                let damage = DAMAGES.iter().find(|damage| damage.sql.contains("ENABLE TRIGGER ALL"));
                let step = self.step;
                self.present.extend(damage.map(|damage| Done { damage, step }));
            }
            Ok(()) => {}
            // A table of others that refers to ours cannot be truncated with it.
            Err(message) => assert!(!self.present.is_empty(), "psql: {message}"),
        }
    }

    /// What holds after each step.
    fn check(&mut self) {
        self.server.check(self.place.cluster);
        let failing = self.failing();
        let is_damaged = self.any(|damage| DEFINITIONS.iter().any(|check| damage.checks.starts_with(check)));
        assert!(!failing.is_empty() || !is_damaged, "health names nothing");
        assert!(
            failing.iter().all(|row| !row.hint.is_empty() && !row.detail.is_empty()),
            "{failing:?}"
        );
        self.check_a_visit();
        self.keep_untold_alive();
        self.server.check(self.place.cluster);
    }

    /// Lets a user whom no damage concerns log in and out, and nobody else reach its session meanwhile.
    fn check_a_visit(&mut self) {
        let (refuses, stops) = (self.any(|damage| damage.refuses), self.any(|damage| damage.stops));
        let schema = self.place.schema();
        let mut service = self.place.session(Actor::Service);
        let user = Uuid::new_v4();
        self.listener.mark(self.place);
        let start = format!("SELECT session_id FROM {schema}.start_session(user_id => $1)");
        let session: Uuid = match service.query_one(&start, &[&user]) {
            Ok(row) => row.get(0),
            Err(error) => return assert_told_why(&error, refuses, &start),
        };
        let mut answer = |function: &str, argument: Uuid| -> Option<String> {
            let sql = format!("SELECT {schema}.{function}($1)::text");
            match service.query_one(&sql, &[&argument]) {
                Ok(row) => row.get(0),
                Err(error) => {
                    assert_told_why(&error, refuses, &sql);
                    None
                }
            }
        };
        let expect = |answer: Option<String>, expected: &str, what: &str| {
            assert!(answer.as_deref() == Some(expected) || refuses, "{what}: {answer:?}");
        };
        expect(answer("heartbeat", session), "ok", "a heartbeat");
        expect(answer("is_online", user), "true", "is_online after a login");
        checks::assert_rights(self.place, user, session, self.any(|damage| damage.opens));
        expect(
            answer("heartbeat", session),
            "ok",
            "a heartbeat after the attempts of others",
        );
        if stops {
            return self.untold.push(Untold { user, session });
        }
        self.listener.wait_for(self.place, user, "active");
        expect(answer("end_session", session), "true", "a logout");
        expect(answer("is_online", user), "false", "is_online after a logout");
        if !refuses {
            self.listener.wait_for(self.place, user, "inactive");
            self.counts.told += 2;
        }
    }

    /// Beats for those whose login could not be told yet, so that it still has to be.
    fn keep_untold_alive(&mut self) {
        let sessions: Vec<Uuid> = self.untold.iter().map(|untold| untold.session).collect();
        if !sessions.is_empty() {
            let sql = format!("SELECT {}.heartbeat_many($1)", self.place.schema());
            let mut service = self.place.session(Actor::Service);
            // Sessions that memory does not know, as they were restored away, are looked for in the table.
            if let Err(error) = service.query_one(&sql, &[&sessions]) {
                assert_told_why(&error, self.any(|damage| damage.refuses || damage.stops), &sql);
            }
        }
    }
}

impl Drop for Walk<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the walk in database {}:", self.place.names().database);
            for line in &self.history {
                eprintln!("  {line}");
            }
        }
    }
}

/// Asserts that a call may be refused, and says what to do.
fn assert_told_why(error: &postgres::Error, refuses: bool, sql: &str) {
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
    let is_definition = error.code() == &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
        && error.hint().is_some_and(|hint| hint.contains("presence_health()"));
    // PostgreSQL's own words about a publication.
    let is_publication = error.code() == &SqlState::INVALID_COLUMN_REFERENCE
        && error.detail().is_some_and(|detail| detail.contains("publication"));
    assert!(refuses && (is_definition || is_publication), "{sql}: {error:?}");
}

/// Whether another transaction was in the way.
fn is_conflict(error: &postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| ["40P01", "55P03", "57014"].contains(&code.code()))
}

/// Whether a statement failed because something else has been altered before.
fn is_of_another_damage(code: &SqlState) -> bool {
    ["42", "2B", "0A", "3F", "55", "23", "P0"].contains(&&code.code()[..2])
}
