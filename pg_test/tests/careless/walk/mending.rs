//! What health names, and its statements, which mend it.

use std::time::{Duration, Instant};

use pg_presence_test::{patience, wait_until};

use super::{Untold, Walk};
use crate::place::Actor;

/// A row of health that is not ok.
#[derive(Clone, Debug)]
pub struct HealthRow {
    pub name: String,
    pub detail: String,
    pub hint: String,
    /// The statements of the hint, as one script.
    statements: String,
}

impl Walk<'_, '_> {
    /// Runs the statements that health gives, and undoes by hand what it only describes, until nothing is wrong.
    pub fn mend(&mut self) {
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

    pub fn wait_until_healthy(&self) {
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
    pub fn failing(&self) -> Vec<HealthRow> {
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
