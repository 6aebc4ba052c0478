//! Clients under load, who remember what they were told, and hold the server to it whatever happens to it.

mod feed;
mod keeper;
mod session;

use std::{
    collections::{HashMap, VecDeque},
    error::Error as _,
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use postgres::{Client, Error, NoTls};
use uuid::Uuid;

use crate::{Database, Dice, wait_for, wait_until};
pub use feed::Feed;
use keeper::Keeper;
use session::Session;

/// Sessions of one member.
const SESSIONS: usize = 12;
/// One of so many is a keeper, which never signs out before the end.
const KEEPERS: usize = 3;

/// Of how many sessions that have ended a member still knows the id.
const REMEMBERED: usize = 1000;

/// What all members share.
#[derive(Default)]
pub struct Crew {
    members: u64,
    stop: AtomicBool,
    /// Whether nobody is to come or go.
    still: AtomicBool,
    /// What each member that holds still knows of its users: whether they are live.
    known: Mutex<HashMap<u64, Vec<(Uuid, bool)>>>,
    logins: AtomicU64,
    beats: AtomicU64,
    logouts: AtomicU64,
    keepers: Mutex<HashMap<Uuid, Keeper>>,
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
    /// A crew of so many members.
    pub fn of(members: u64) -> Crew {
        Crew {
            members,
            ..Crew::default()
        }
    }

    /// The numbers of its members.
    pub fn members(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.members
    }

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

    /// Has nobody come or go any more, who is live go on beating, and gives what the clients know of every user then:
    /// whether it is live.
    fn hold_still(&self) -> Vec<(Uuid, bool)> {
        self.known.lock().expect("what is known").clear();
        self.still.store(true, Ordering::Release);
        wait_for("everybody to hold still", || {
            let known = self.known.lock().expect("what is known");
            (known.len() as u64 == self.members)
                .then(|| known.values().flatten().copied().collect())
        })
    }

    fn go_on(&self) {
        self.still.store(false, Ordering::Release);
    }

    /// Whether a user may have been told to be inactive at this time, last seen at the other: it is no keeper, or a
    /// keeper that was silent for too long meanwhile.
    fn excuses(&self, user: Uuid, seen: DateTime<Utc>, told: DateTime<Utc>) -> bool {
        let keepers = self.keepers.lock().expect("the keepers");
        keepers
            .get(&user)
            .is_none_or(|keeper| keeper.excuses(seen, told, Utc::now()))
    }

    /// A keeper has beaten.
    fn has_beaten(&self, user: Uuid, sent: DateTime<Utc>) {
        let mut keepers = self.keepers.lock().expect("the keepers");
        keepers
            .entry(user)
            .or_insert_with(|| Keeper::begin(sent))
            .has_beaten(sent, Utc::now());
    }

    /// A keeper is about to sign out.
    fn stops_beating(&self, user: Uuid) {
        let mut keepers = self.keepers.lock().expect("the keepers");
        if let Some(keeper) = keepers.get_mut(&user) {
            keeper.signs_out(Utc::now());
        }
    }

    /// How long the keepers have kept beating, as a figure. Each of them has to have done so at some time, or
    /// nothing is shown.
    pub fn kept_beating(&self) -> String {
        let keepers = self.keepers.lock().expect("the keepers");
        let all = self.members as usize * SESSIONS.div_ceil(KEEPERS);
        let counts = |keeper: &&Keeper| {
            let (watched, silent) = keeper.watched();
            silent < watched
        };
        let kept = keepers.values().filter(counts).count();
        let (watched, silent) = keepers
            .values()
            .map(Keeper::watched)
            .fold((TimeDelta::zero(), TimeDelta::zero()), |sum, one| {
                (sum.0 + one.0, sum.1 + one.1)
            });
        assert_eq!(kept, all, "too few have kept beating");
        format!(
            "{kept} users kept beating for {} s, {} s of silence apart, and none was reported inactive",
            watched.num_seconds(),
            silent.num_seconds()
        )
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
    let mut member = Member {
        crew,
        number,
        sessions: (0..SESSIONS)
            .map(|n| Session::new(Uuid::new_v4(), n % KEEPERS == 0))
            .collect(),
        ended: VecDeque::new(),
        dice: Dice::new(number),
    };
    while let Err(error) = member.work(&mut connect(database)) {
        assert!(is_cut(&error), "{error:?}");
    }
}

/// One client, and what it knows.
struct Member<'c> {
    crew: &'c Crew,
    number: u64,
    sessions: Vec<Session>,
    ended: VecDeque<Uuid>,
    dice: Dice,
}

impl Member<'_> {
    /// From a connection's begin to its end, or to the end of all work.
    fn work(&mut self, client: &mut Client) -> Result<(), Error> {
        let crew = self.crew;
        for session in &mut self.sessions {
            session.check(client, crew)?;
        }
        self.check_ended(client)?;
        while !crew.stop.load(Ordering::Relaxed) {
            if crew.still.load(Ordering::Acquire) {
                self.hold_still(client)?;
                continue;
            }
            if let Some(late) = self.sessions.iter_mut().find(|session| session.is_late()) {
                late.keep(client, crew)?;
                continue;
            }
            let at = self.dice.roll(SESSIONS as u64) as usize;
            let chance = self.dice.number() >> 8;
            let ended = self.sessions[at].step(client, crew, chance)?;
            self.ended.extend(ended);
            if self.ended.len() > REMEMBERED {
                self.ended.pop_front();
            }
        }
        for session in &mut self.sessions {
            let ended = session.sign_out(client, crew)?;
            self.ended.extend(ended);
        }
        self.check_ended(client)
    }

    /// Comes to know how things stand, says so, and only beats until it may go on.
    fn hold_still(&mut self, client: &mut Client) -> Result<(), Error> {
        let mut known = Vec::new();
        for session in &mut self.sessions {
            let ended = session.resolve(client, self.crew)?;
            self.ended.extend(ended);
            known.push(session.known());
        }
        let mut all = self.crew.known.lock().expect("what is known");
        all.insert(self.number, known);
        drop(all);
        while self.crew.still.load(Ordering::Acquire) && !self.crew.stop.load(Ordering::Relaxed) {
            for session in &mut self.sessions {
                session.keep(client, self.crew)?;
            }
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Asserts that no session that has ended is back.
    fn check_ended(&self, client: &mut Client) -> Result<(), Error> {
        let mut ended: Vec<Uuid> = self.ended.iter().copied().collect();
        let row = client.query_one("SELECT presence.heartbeat_many($1)", &[&ended])?;
        let mut missed: Vec<Uuid> = row.get(0);
        ended.sort();
        missed.sort();
        assert_eq!(missed, ended, "a logout is undone");
        Ok(())
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
            .is_some_and(|code| shutdown.contains(&code.code()))
        || error
            .source()
            .is_some_and(|source| source.is::<io::Error>())
}
