//! Fifty connections under load while the worker suffers one disturbance after another.

mod disk;
mod disturbance;
mod memory;

use std::{
    thread,
    time::{Duration, Instant},
};

use disturbance::Disturbance;
use memory::{Growth, Memory};
use pg_presence_test::{
    Cluster, FeedCopy, Presence, report, soak, wait_until,
    workload::{self, FeedHistory, Workload},
};

const CONNECTIONS: u64 = 50;
/// Answers during each disturbance, and after it.
const ANSWERS: u64 = 3000;
/// The minimum duration of each disturbance.
const MIN_DURATION: Duration = Duration::from_secs(3);
/// Without a disturbance, wait for this many times [`ANSWERS`].
const CALM_PERIODS: u32 = 10;

#[test]
fn every_change_is_published_once_whatever_disturbs_the_worker() {
    let cluster = Cluster::private(&[
        ("presence.active_timeout", "10s"),
        ("presence.heartbeat_interval", "3s"),
        ("presence.flush_interval", "1s"),
        ("presence.retention", "10s"),
        // So that an hour's run has something to trim.
        ("presence.feed_retention", "10min"),
        // One for the launcher, one for a worker, one for the server's logical replication launcher.
        ("max_worker_processes", "3"),
    ]);
    let database = cluster.database();
    database.wait_until_served();
    let disk = disk::SmallDisk::for_feed_of(&database);
    let workload = Workload::with_clients(CONNECTIONS);
    let mut feed = FeedHistory::begin(&database);
    let mut copy = FeedCopy::new(database.listen(), database.connect());
    let until = Instant::now() + Duration::from_secs(if soak() { 3600 } else { 60 });
    let mut rounds = 0;
    let mut growth = Growth::default();
    thread::scope(|scope| {
        let clients: Vec<_> = workload
            .clients()
            .map(|number| {
                let (workload, database) = (&workload, &database);
                scope.spawn(move || workload::run_client(workload, database, number))
            })
            .collect();
        let stop = workload.stop_on_drop(&cluster);
        loop {
            for disturbance in Disturbance::ALL {
                disturbance.apply(&database, &disk, || {
                    let lasts = Instant::now() + MIN_DURATION;
                    workload.wait_for_answers(ANSWERS);
                    thread::sleep(lasts.saturating_duration_since(Instant::now()));
                });
                database.wait_until_served();
                workload.wait_for_answers(ANSWERS);
                feed.wait_until_complete(&database, &workload);
            }
            rounds += 1;
            // From here on no new process starts.
            let before = Memory::of(&database);
            let mut calm = 0;
            while calm < CALM_PERIODS || (!soak() && Instant::now() < until) {
                workload.wait_for_answers(ANSWERS);
                calm += 1;
            }
            growth = growth.max(Memory::of(&database).since(&before));
            if Instant::now() >= until {
                break;
            }
        }
        drop(stop);
        for client in clients {
            if let Err(panic) = client.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });

    let mut client = database.connect();
    wait_until("everybody to be written as offline", || {
        let sql = "SELECT count(*) FROM presence.user_presence WHERE is_online";
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0
    });
    assert_eq!(client.online_count(), 0, "somebody is online again");
    copy.reconnect(database.listen(), database.connect());
    copy.wait_until_equal();
    feed.read(&database, &workload);
    assert!(feed.epochs() <= rounds + 1, "more epochs than crashes of the server");
    report(&workload.steady_report());
    report(&format!(
        "{} disturbances; {CONNECTIONS} connections: {}; {} changes published, each once; p99 of a beat {:?}",
        rounds * Disturbance::ALL.len(),
        workload.acknowledged_report(),
        feed.count(),
        workload.p99_latency(),
    ));
    growth.assert_flat();
}
