//! Random histories, run on a server and on a small reference, which have to agree at every step.
//!
//! Users sign in, beat, are idle, are bound to connections that end, declare statuses, fall silent and leave over several
//! connections, in transactions with savepoints and by plain
//! SQL, while hours pass, the timeout changes and the worker is terminated. A history whose results differ is shrunk,
//! printed and saved in `regressions.txt`, whose histories are tried first in the next run.

mod action;
mod connection;
mod reference;
mod run;
mod server;
mod step;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use pg_presence_test::{Cluster, report, times};
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use server::ServerUnderTest;

const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/regressions.txt");

/// Servers that run histories side by side: the clock and the timeout belong to a server.
const SERVERS: u32 = 10;

fn run_histories(histories: u32, steps: &AtomicU64) {
    let timeout = server::half_hours(reference::SHORT_TIMEOUT);
    let cluster = Cluster::private(&[
        ("presence.active_timeout", &timeout),
        ("presence.idle_timeout", &server::half_hours(reference::IDLE_TIMEOUT)),
        // A hundred thousand histories take years of the test's clock, while SQL's own clock stays behind.
        ("presence.retention", "3650d"),
        ("presence.feed_retention", "3650d"),
    ]);
    let server = std::cell::RefCell::new(ServerUnderTest::new(&cluster, 0));
    let mut runner = TestRunner::new(Config {
        cases: histories,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        source_file: Some(file!()),
        // Each attempt at a failing history may wait for a timeout.
        max_shrink_iters: 200,
        max_shrink_time: 120_000,
        ..Config::default()
    });
    let outcome = runner.run(&step::history(1..40), |history| {
        steps.fetch_add(history.len() as u64, Ordering::Relaxed);
        server.borrow_mut().run(&history)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn every_history_matches_the_reference() {
    let histories = times(1_000, 100_000);
    let (steps, began) = (AtomicU64::new(0), Instant::now());
    thread::scope(|scope| {
        let servers: Vec<_> = (0..SERVERS)
            .map(|_| scope.spawn(|| run_histories(histories / SERVERS, &steps)))
            .collect();
        for server in servers {
            if let Err(panic) = server.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    report(&format!(
        "{histories} histories of {} steps in all, in {:.0} s: statuses, counts and feed equal the reference's",
        steps.load(Ordering::Relaxed),
        began.elapsed().as_secs_f64(),
    ));
}
