//! Fifty connections at work while the worker has one trouble after the other.

mod disk;
mod memory;
mod trouble;

use std::{
    thread,
    time::{Duration, Instant},
};

use memory::{Growth, Memory};
use pg_presence_test::{
    Cluster, Mirror, Presence,
    crew::{self, Crew, Feed, Stop},
    figure, soak, wait_until,
};
use trouble::Trouble;

const CONNECTIONS: u64 = 50;
/// Answers during each trouble, and after it.
const ANSWERS: u64 = 3000;
/// How long each trouble lasts at least.
const TROUBLE: Duration = Duration::from_secs(3);
/// So many times as many answers when there is none.
const CALM: u32 = 10;

#[test]
fn every_change_is_told_once_whatever_troubles_the_worker() {
    let cluster = Cluster::own(&[
        ("presence.active_timeout", "10s"),
        ("presence.heartbeat_interval", "3s"),
        ("presence.flush_interval", "1s"),
        ("presence.retention", "10s"),
        // So that an hour's run has something to remove.
        ("presence.feed_retention", "10min"),
        // One for the launcher, one for a worker, one for the server's own launcher of subscriptions.
        ("max_worker_processes", "3"),
    ]);
    let database = cluster.database();
    database.wait_until_served();
    let disk = disk::Small::under(&database);
    let crew = Crew::of(CONNECTIONS);
    let mut feed = Feed::begin(&database);
    let mut mirror = Mirror::new(database.listen(), database.connect());
    let until = Instant::now() + Duration::from_secs(if soak() { 3600 } else { 60 });
    let mut rounds = 0;
    let mut growth = Growth::default();
    thread::scope(|scope| {
        let members: Vec<_> = crew
            .members()
            .map(|number| {
                let (crew, database) = (&crew, &database);
                scope.spawn(move || crew::work(crew, database, number))
            })
            .collect();
        let stop = Stop(&crew);
        loop {
            for trouble in Trouble::ALL {
                trouble.make(&database, &disk, || {
                    let lasts = Instant::now() + TROUBLE;
                    crew.wait_for_answers(ANSWERS);
                    thread::sleep(lasts.saturating_duration_since(Instant::now()));
                });
                database.wait_until_served();
                crew.wait_for_answers(ANSWERS);
                feed.settle(&database, &crew);
            }
            rounds += 1;
            // No process is new from here on.
            let before = Memory::of(&database);
            let mut calm = 0;
            while calm < CALM || (!soak() && Instant::now() < until) {
                crew.wait_for_answers(ANSWERS);
                calm += 1;
            }
            growth = growth.max(Memory::of(&database).since(&before));
            if Instant::now() >= until {
                break;
            }
        }
        drop(stop);
        for member in members {
            if let Err(panic) = member.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });

    let mut client = database.connect();
    wait_until("everybody to be told to be gone", || {
        let sql = "SELECT count(*) FROM presence.user_presence WHERE is_online";
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0
    });
    assert_eq!(client.online_count(), 0, "somebody has come back");
    mirror.reconnect(database.listen(), database.connect());
    mirror.wait_until_agreed();
    feed.read(&database, &crew);
    figure(&crew.kept_beating());
    figure(&format!(
        "{} troubles; {CONNECTIONS} connections: {}; {} changes told, each once; a beat took {:?} at most in 99 of 100",
        rounds * Trouble::ALL.len(),
        crew.acknowledged(),
        feed.seen(),
        crew.slowest_of_a_hundred(),
    ));
    growth.assert_flat();
}
