//! Clients under load, who remember what they were told.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use pg_presence_test::{Database, wait_for, wait_until};
use postgres::{Client, Error, NoTls};
use uuid::Uuid;

use crate::session::Session;

/// A client that was silent for longer, because the machine or the server stood still, has not kept beating.
const SILENCE: TimeDelta = TimeDelta::seconds(7);

/// What all members share.
#[derive(Default)]
pub struct Crew {
    pub stop: AtomicBool,
    pub logins: AtomicU64,
    pub beats: AtomicU64,
    pub logouts: AtomicU64,
    /// When those who never stop beating have beaten last.
    keepers: Mutex<HashMap<Uuid, DateTime<Utc>>>,
    loss: Mutex<TimeDelta>,
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
}

/// Works until the crew is to stop, through every crash, and then signs everybody out.
pub fn work(crew: &Crew, database: &Database, number: u64) {
    let mut sessions: Vec<Session> = (0..12)
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
