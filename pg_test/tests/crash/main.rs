//! Crashes at random moments and at fault points, under load.
//!
//! Results are checked against the clients' own records of what was acknowledged, and against what a reader of the feed has
//! read before, never against the server's answers alone.

mod fault;

use std::thread;

use fault::Fault;
use pg_presence_test::{
    Cluster, FeedCopy, Presence, Rng, report, seed, soak, wait_until,
    workload::{self, FeedHistory, Workload},
};

#[test]
fn everything_acknowledged_survives_every_crash() {
    let cluster = Cluster::private(&[
        ("presence.active_timeout", "10s"),
        ("presence.heartbeat_interval", "3s"),
        ("presence.flush_interval", "1s"),
        ("presence.retention", "10s"),
    ]);
    let database = cluster.database();
    database.wait_until_served();
    let workload = Workload::with_clients(6);
    let mut feed = FeedHistory::begin(&database);
    let mut copy = FeedCopy::new(database.listen(), database.connect());
    let rounds = if soak() { 10 } else { 1 };
    let seed = seed();
    report(&format!("random crashes, seed {seed}"));
    let mut rng = Rng::new(seed);
    let mut crashes = 0;
    thread::scope(|scope| {
        let clients: Vec<_> = workload
            .clients()
            .map(|number| {
                let (workload, database) = (&workload, &database);
                scope.spawn(move || workload::run_client(workload, database, number))
            })
            .collect();
        let stop = workload.stop_on_drop(&cluster);
        for _ in 0..rounds {
            for fault in Fault::plan(20, &mut rng) {
                workload.wait_for_answers(200);
                copy.receive();
                thread::sleep(fault.delay(&mut rng));
                fault.inject(&database);
                crashes += 1;
                workload.wait_for_answers(200);
                copy.reconnect(database.listen(), database.connect());
                feed.wait_until_complete(&database, &workload);
            }
        }
        drop(stop);
        for client in clients {
            if let Err(panic) = client.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });

    // Everybody has signed out.
    let mut client = database.connect();
    wait_until("everybody to be written as offline", || {
        let sql = "SELECT count(*) FROM presence.user_presence WHERE is_online";
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0
    });
    assert_eq!(client.online_count(), 0, "somebody is online again");
    copy.wait_until_equal();
    feed.read(&database, &workload);
    assert!(feed.epochs() <= crashes + 1, "an epoch ended without a crash");
    report(&workload.steady_report());
    report(&format!(
        "{crashes} crashes; {}; {} changes without gap or repeat; beats lost: those of at most {:.1} s",
        workload.acknowledged_report(),
        feed.count(),
        workload.worst_loss().as_seconds_f64(),
    ));
}
