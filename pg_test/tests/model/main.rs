//! Random histories, lived through by a server and by a small reference, which have to agree at every step.
//!
//! Users sign in, beat, fall silent and leave over several connections, in transactions with savepoints and by plain
//! SQL, while hours pass, the timeout changes and the worker is terminated. A history that comes out differently is made
//! as short as it can be, told, and kept in `regressions.txt`, whose histories are the first to be tried again.

mod act;
mod connection;
mod reference;
mod run;
mod step;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use pg_presence_test::{Cluster, figure, soak};
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use world::World;

const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/regressions.txt");

/// Servers that live through histories side by side: a clock and a timeout are a server's.
const SERVERS: u32 = 10;

fn live_through(histories: u32, steps: &AtomicU64) {
    let timeout = world::half_hours(reference::SHORT_TIMEOUT);
    let cluster = Cluster::own(&[
        ("presence.active_timeout", &timeout),
        // A hundred thousand histories take years, and what the server dates by SQL's clock looks old soon.
        ("presence.retention", "3650d"),
        ("presence.feed_retention", "3650d"),
    ]);
    let world = std::cell::RefCell::new(World::new(&cluster, 0));
    let mut runner = TestRunner::new(Config {
        cases: histories,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        source_file: Some(file!()),
        // A failure may be one to wait for.
        max_shrink_iters: 200,
        max_shrink_time: 120_000,
        ..Config::default()
    });
    let outcome = runner.run(&step::history(1..40), |history| {
        steps.fetch_add(history.len() as u64, Ordering::Relaxed);
        world.borrow_mut().live(&history)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn every_history_comes_out_as_the_contract_says() {
    let histories = if soak() { 100_000 } else { 1_000 };
    let (steps, began) = (AtomicU64::new(0), Instant::now());
    thread::scope(|scope| {
        let servers: Vec<_> = (0..SERVERS)
            .map(|_| scope.spawn(|| live_through(histories / SERVERS, &steps)))
            .collect();
        for server in servers {
            if let Err(panic) = server.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    figure(&format!(
        "{histories} histories of {} steps in all, in {:.0} s: statuses, counts and feed as the reference has them",
        steps.load(Ordering::Relaxed),
        began.elapsed().as_secs_f64(),
    ));
}
