//! The walk: one careless step after another, and what is checked after each.

use std::time::{Duration, Instant};

use pg_presence_test::{Rng, patience, wait_until};
use postgres::error::SqlState;
use uuid::Uuid;

use crate::{
    attempt::ATTEMPTS,
    checks::{self, ServerWatch},
    damage::{DAMAGES, Damage},
    listener::Listener,
    place::{Actor, Place},
};

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
        self.present.push(Done { damage, step });
        if !damage.checks.is_empty() {
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
        let names = self.place.names();
        let mut dump = self.place.cluster.program("pg_dump", &names.database);
        dump.args(["--data-only", "--no-owner"]);
        if disable {
            dump.arg("--disable-triggers");
        }
        let dumped = dump.output().expect("pg_dump");
        drop(names);
        let message = String::from_utf8_lossy(&dumped.stderr).into_owned();
        assert!(
            dumped.status.success() || !self.present.is_empty(),
            "pg_dump: {message}"
        );
        self.log(format!(
            "pg_dump --data-only{}, TRUNCATE, psql",
            if disable { " --disable-triggers" } else { "" }
        ));
        if !dumped.status.success() || self.any(|damage| damage.refuses || damage.stops) {
            return;
        }
        let script = String::from_utf8(dumped.stdout).expect("UTF-8");
        let truncate = self
            .place
            .fill("TRUNCATE {user_sessions}, {user_presence}, {_feed_state}", self.step);
        let names = self.place.names();
        let mut psql = self.place.cluster.program("psql", &names.database);
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--single-transaction",
            "--set=ON_ERROR_STOP=1",
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
        let mut psql = psql.spawn().expect("psql");
        let mut input = psql.stdin.take().expect("a pipe");
        // It stops reading at the first error.
        let _ = std::io::Write::write_all(&mut input, format!("{truncate};\n{script}").as_bytes());
        drop(input);
        let restored = psql.wait_with_output().expect("psql");
        drop(names);
        let message = String::from_utf8_lossy(&restored.stderr).into_owned();
        // A table of others that refers to ours cannot be truncated with it.
        assert!(restored.status.success() || !self.present.is_empty(), "psql: {message}");
        if disable && restored.status.success() {
            let damage = DAMAGES.iter().find(|damage| damage.sql.contains("ENABLE TRIGGER ALL"));
            let step = self.step;
            self.present.extend(damage.map(|damage| Done { damage, step }));
        }
    }

    /// Runs the statements that health gives, and undoes by hand what it only describes, until nothing is wrong.
    fn mend(&mut self) {
        let mut unmended = std::mem::take(&mut self.present);
        let by_hand = unmended.iter().any(|done| done.damage.is_undone_by_hand);
        // What one statement waits for may be something that only the hand undoes.
        let mut errors = self.run_hints();
        unmended.retain(|done| done.damage.is_undone_by_hand);
        unmended.reverse();
        for done in &unmended {
            self.undo_one(done);
        }
        assert!(
            errors.is_empty() || by_hand,
            "the statements of health fail: {errors:?}"
        );
        for _ in 0..3 {
            if self.failing().iter().all(|row| row.statements.is_empty()) {
                break;
            }
            errors = self.run_hints();
        }
        assert!(errors.is_empty(), "the statements of health fail: {errors:?}");
        self.wait_until_healthy();
        self.present.clear();
        for untold in std::mem::take(&mut self.untold) {
            self.wait_for_untold(&untold);
        }
    }

    /// Runs the statements that the rows of health contain, in their order. Returns the errors.
    fn run_hints(&mut self) -> Vec<String> {
        let mut errors = Vec::new();
        for row in self.failing() {
            if !row.statements.is_empty()
                && let Err(error) = self.run(Actor::Superuser, &row.statements)
            {
                errors.push(format!("{}: {}: {error:?}", row.name, row.statements));
            }
        }
        errors
    }

    fn wait_until_healthy(&self) {
        let mut failing = Vec::new();
        let began = Instant::now();
        loop {
            failing.clear();
            failing.extend(self.failing());
            if failing.is_empty() {
                return;
            }
            assert!(began.elapsed() < patience(), "health still says {failing:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the rows of health that are not ok. It always answers, a service too.
    fn failing(&self) -> Vec<HealthRow> {
        let sql = format!(
            "SELECT check_name, detail, coalesce(hint, '') FROM {}.presence_health() WHERE NOT ok",
            self.place.schema()
        );
        let mut client = self.place.connect();
        let rows = client
            .query(&sql, &[])
            .unwrap_or_else(|error| panic!("health does not answer: {error:?}"));
        rows.iter()
            .map(|row| {
                let hint: String = row.get(2);
                let statements = hint.trim_start_matches("Run ");
                let end = statements.rfind(';').map_or(0, |at| at + 1);
                HealthRow {
                    name: row.get(0),
                    detail: row.get(1),
                    statements: statements[..end].to_owned(),
                    hint: hint.clone(),
                }
            })
            .collect()
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

    /// Waits until a login is told that a damage has kept back, and lets the user log out. A session that was restored
    /// away, or whose row was mended away, is told by its absence.
    fn wait_for_untold(&mut self, untold: &Untold) {
        let schema = self.place.schema();
        let mut service = self.place.session(Actor::Service);
        let beat = format!("SELECT {schema}.heartbeat($1)");
        let answer: String = service
            .query_one(&beat, &[&untold.session])
            .expect("a heartbeat")
            .get(0);
        if answer != "ok" {
            return;
        }
        let written = self
            .place
            .fill("SELECT is_online FROM {user_presence} WHERE user_id = $1", 0);
        wait_until("a login that was kept back is told", || {
            // It stays alive meanwhile.
            service.query_one(&beat, &[&untold.session]).expect("a heartbeat");
            let row = service.query_opt(&written, &[&untold.user]).expect("a row");
            row.is_some_and(|row| row.get(0))
        });
        self.listener.mark(self.place);
        let end = format!("SELECT {schema}.end_session($1)");
        service.query_one(&end, &[&untold.session]).expect("a logout");
        self.listener.wait_for(self.place, untold.user, "inactive");
        self.counts.told += 2;
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

/// A row of health that is not ok.
#[derive(Clone, Debug)]
struct HealthRow {
    name: String,
    detail: String,
    hint: String,
    /// The statements of the hint, as one script.
    statements: String,
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
