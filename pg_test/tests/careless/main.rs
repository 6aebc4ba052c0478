//! Careless people: a random walk of grants, revokes, altered tables, triggers, publications, foreign keys, restores and
//! renames, by the owner, a superuser and others, while clients start, beat and end sessions all the time.
//!
//! After each step others are told in time, nobody has a right too many, `presence_health()` names what is wrong, and its
//! statements mend it. A walk that fails prints its steps and its seed.

mod attempt;
mod checks;
mod damage;
mod dump;
mod listener;
mod load;
mod place;
mod walk;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use pg_presence_test::{Cluster, Rng, StopOnDrop, report, seed, seed_or, soak};
use place::Place;
use walk::Walk;

/// Databases of one server in which people are careless at the same time.
const DATABASES: u64 = 2;
/// The length of a walk; then a new database is made, as a table can have only so many columns dropped and added again.
const STEPS: u64 = 50;

#[test]
fn careless_people_stop_nothing_open_nothing_and_are_named() {
    let cluster = Cluster::private(&[
        ("presence.active_timeout", "10s"),
        ("presence.heartbeat_interval", "3s"),
        ("presence.flush_interval", "1s"),
        ("presence.retention", "10s"),
        ("presence.feed_retention", "10min"),
        // With the SQLSTATE, for the watch over the log.
        ("log_line_prefix", "%m [%p] %b %d %e "),
    ]);
    let steps: u64 = if soak() { 20_000 } else { 200 };
    let walks = steps / STEPS;
    // Each run takes the same steps; the long form looks for new ones.
    let seed = if soak() { seed() } else { seed_or(1) };
    report(&format!("careless people, seed {seed}"));
    let (began, next) = (Instant::now(), AtomicU64::new(0));
    let (told, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    // Set by a walk that fails.
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let walkers: Vec<_> = (0..DATABASES)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= walks || over.load(Ordering::Relaxed) {
                            return;
                        }
                        let failed = StopOnDrop(&over);
                        let place = Place::new(&cluster, number);
                        let rng = Rng::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
                        let counts = load::under_load(&place, || {
                            let mut walk = Walk::new(&place, rng);
                            for _ in 0..STEPS {
                                walk.step();
                            }
                            walk.finish()
                        });
                        told.fetch_add(counts.told, Ordering::Relaxed);
                        refused.fetch_add(counts.refused, Ordering::Relaxed);
                        place.drop_database();
                        std::mem::forget(failed);
                    }
                })
            })
            .collect();
        for walker in walkers {
            if let Err(panic) = walker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    report(&format!(
        "{steps} steps in {walks} databases, in {:.0} s: {} logins and logouts told, {} attempts refused; every damage named \
         and mended, no code of others run, no crash",
        began.elapsed().as_secs_f64(),
        told.into_inner(),
        refused.into_inner(),
    ));
}
