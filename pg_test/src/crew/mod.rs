//! Clients under load, who remember what they were told, and hold the server to it whatever happens to it.

mod feed;
mod session;

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use postgres::{Client, Error, NoTls};
use uuid::Uuid;

use crate::{Database, wait_for, wait_until};
pub use feed::Feed;
use session::Session;

/// Sessions of one member, a third of which never sign out before the end.
const SESSIONS: usize = 12;

/// A client that was silent for longer, because the machine or the server stood still, has not kept beating.
const SILENCE: TimeDelta = TimeDelta::seconds(7);

/// What all members share.
#[derive(Default)]
pub struct Crew {
    stop: AtomicBool,
    logins: AtomicU64,
    beats: AtomicU64,
    logouts: AtomicU64,
    /// When those who never stop beating have beaten last.
    keepers: Mutex<HashMap<Uuid, DateTime<Utc>>>,
    loss: Mutex<TimeDelta>,
    /// How many beats took so many microseconds, by the power of the fourth root of two.
    took: Mutex<Vec<u64>>,
}

/// Tells the members to stop, however the scope is left that they work in.
pub struct Stop<'a>(pub &'a Crew);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Crew {
    fn answers(&self) -> u64 {
        [&self.logins, &self.beats, &self.logouts]
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum()
    }

    /// Waits until the members have had so many answers more.
    pub fn wait_for_answers(&self, more: u64) {
        let enough = self.answers() + more;
        wait_until("answers", || self.answers() >= enough);
    }

    /// Whether a user has kept beating from the first acknowledged login until now.
    pub fn keeps_beating(&self, user: &Uuid) -> bool {
        let keepers = self.keepers.lock().expect("the keepers");
        keepers
            .get(user)
            .is_some_and(|beaten| Utc::now() - beaten < SILENCE)
    }

    /// A keeper has beaten.
    pub fn has_beaten(&self, user: Uuid, sent: DateTime<Utc>) {
        let mut keepers = self.keepers.lock().expect("the keepers");
        let before = keepers.insert(user, sent);
        if before.is_some_and(|before| sent - before >= SILENCE) {
            // Never again a keeper, as any silence since then is longer.
            keepers.insert(user, DateTime::<Utc>::MIN_UTC);
        }
    }

    /// A keeper is about to sign out.
    pub fn stops_beating(&self, user: Uuid) {
        let mut keepers = self.keepers.lock().expect("the keepers");
        keepers.insert(user, DateTime::<Utc>::MIN_UTC);
    }

    /// The beats of this much time were lost in a crash.
    pub fn has_lost(&self, time: TimeDelta) {
        let mut worst = self.loss.lock().expect("the loss");
        *worst = time.max(*worst);
    }

    pub fn worst_loss(&self) -> TimeDelta {
        *self.loss.lock().expect("the loss")
    }

    fn has_taken(&self, time: Duration) {
        let class = (4.0 * (time.as_micros() as f64).max(1.0).log2()) as usize;
        let mut took = self.took.lock().expect("the times");
        if took.len() <= class {
            took.resize(class + 1, 0);
        }
        took[class] += 1;
    }

    /// Of a hundred beats, ninety-nine took no longer, to a fifth of it.
    pub fn slowest_of_a_hundred(&self) -> Duration {
        let took = self.took.lock().expect("the times");
        let mut left = took.iter().sum::<u64>() / 100;
        for (class, &count) in took.iter().enumerate().rev() {
            if count > left {
                return Duration::from_micros((2.0f64).powf((class as f64 + 1.0) / 4.0) as u64);
            }
            left -= count;
        }
        Duration::ZERO
    }

    /// What was acknowledged, as a figure.
    pub fn acknowledged(&self) -> String {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "{} logins, {} beats and {} logouts acknowledged, none lost",
            count(&self.logins),
            count(&self.beats),
            count(&self.logouts)
        )
    }
}

/// Works until the crew is to stop, through every crash, and then signs everybody out.
pub fn work(crew: &Crew, database: &Database, number: u64) {
    let mut sessions: Vec<Session> = (0..SESSIONS)
        .map(|n| Session::new(Uuid::new_v4(), n % 3 == 0))
        .collect();
    let mut random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut chance = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random >> 8
    };
    loop {
        let mut client = connect(database);
        let mut work = || {
            for session in &mut sessions {
                session.check(&mut client, crew)?;
            }
            while !crew.stop.load(Ordering::Relaxed) {
                let at = chance() as usize % sessions.len();
                sessions[at].step(&mut client, crew, chance())?;
            }
            for session in &mut sessions {
                session.sign_out(&mut client, crew)?;
            }
            Ok(())
        };
        match work() {
            Ok(()) => return,
            Err(error) => assert!(is_cut(&error), "{error:?}"),
        }
    }
}

fn connect(database: &Database) -> Client {
    let mut config = database.cluster.config(&database.name, "postgres");
    config.application_name("crew");
    wait_for("a connection", || config.connect(NoTls).ok())
}

/// Whether an error only says that the server has gone.
fn is_cut(error: &Error) -> bool {
    let shutdown = ["57P01", "57P02", "57P03"];
    error.is_closed()
        || error
            .code()
            .is_none_or(|code| shutdown.contains(&code.code()))
}
