//! Crashes at random moments and at the worst ones, under load.
//!
//! What is promised is checked against the clients' own records of what was acknowledged, and against what a reader of
//! the feed has seen before, never against the server's word for it alone.

mod kill;

use std::thread;

use kill::Kill;
use pg_presence_test::{
    Cluster, Dice, Mirror, Presence,
    crew::{self, Crew, Feed, Stop},
    figure, seed, soak, wait_until,
};

#[test]
fn whatever_was_acknowledged_outlives_every_crash() {
    let cluster = Cluster::own(&[
        ("presence.active_timeout", "10s"),
        ("presence.heartbeat_interval", "3s"),
        ("presence.flush_interval", "1s"),
        ("presence.retention", "10s"),
    ]);
    let database = cluster.database();
    database.wait_until_served();
    let crew = Crew::of(6);
    let mut feed = Feed::begin(&database);
    let mut mirror = Mirror::new(database.listen(), database.connect());
    let rounds = if soak() { 10 } else { 1 };
    let seed = seed();
    figure(&format!(
        "crashes as the dice of seed {seed} will have them"
    ));
    let mut dice = Dice::new(seed);
    let mut crashes = 0;
    thread::scope(|scope| {
        let members: Vec<_> = crew
            .members()
            .map(|number| {
                let (crew, database) = (&crew, &database);
                scope.spawn(move || crew::work(crew, database, number))
            })
            .collect();
        let stop = Stop(&crew);
        for _ in 0..rounds {
            for kill in Kill::some(20, &mut dice) {
                crew.wait_for_answers(200);
                mirror.receive();
                thread::sleep(kill.delay(&mut dice));
                kill.strike(&database);
                crashes += 1;
                crew.wait_for_answers(200);
                mirror.reconnect(database.listen(), database.connect());
                feed.settle(&database, &crew);
            }
        }
        drop(stop);
        for member in members {
            if let Err(panic) = member.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });

    // Everybody has signed out.
    let mut client = database.connect();
    wait_until("everybody to be told to be gone", || {
        let sql = "SELECT count(*) FROM presence.user_presence WHERE is_online";
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0
    });
    assert_eq!(client.online_count(), 0, "somebody has come back");
    mirror.wait_until_agreed();
    feed.read(&database, &crew);
    figure(&crew.kept_beating());
    figure(&format!(
        "{crashes} crashes; {}; {} changes, no gap, no repeat; freshness lost: {:.1} s at most",
        crew.acknowledged(),
        feed.seen(),
        crew.worst_loss().as_seconds_f64(),
    ));
}
