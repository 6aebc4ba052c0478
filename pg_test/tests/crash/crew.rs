//! Clients under load, who remember what they were told.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};
use pg_presence_test::{Database, wait_for, wait_until};
use postgres::{Client, Error, NoTls};
use uuid::Uuid;

/// How stale a last activity may be after a crash. The flush interval is a second; a machine that stands still for
/// others is forgiven, a flush that does not come is not.
const LOSS: TimeDelta = TimeDelta::seconds(8);

/// What all members share.
#[derive(Default)]
pub struct Crew {
    pub stop: AtomicBool,
    pub logins: AtomicU64,
    pub beats: AtomicU64,
    pub logouts: AtomicU64,
    /// Users whose login was acknowledged and who have beaten ever since.
    keepers: Mutex<Vec<Uuid>>,
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

    pub fn keepers(&self) -> Vec<Uuid> {
        self.keepers.lock().expect("the keepers").clone()
    }

    pub fn worst_loss(&self) -> TimeDelta {
        *self.loss.lock().expect("the loss")
    }
}

/// What a member knows of a session. What was asked and not answered is asked again until it is.
#[derive(Clone, Copy)]
enum Known {
    /// Asked for; the login may have been committed or not.
    Starting,
    Live {
        id: Uuid,
        /// When the last beat that was acknowledged was sent.
        beaten: DateTime<Utc>,
    },
    /// Asked to end; it may have or not.
    Ending(Uuid),
    Ended(Uuid),
}

struct Session {
    user: Uuid,
    token: String,
    /// Never signs out before the end.
    keeps: bool,
    known: Known,
    /// The last activity that the table had after the crash before.
    in_table: Option<DateTime<Utc>>,
}

impl Session {
    fn new(user: Uuid, keeps: bool) -> Session {
        Session {
            user,
            token: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
            keeps,
            known: Known::Starting,
            in_table: None,
        }
    }

    /// Asks for what comes next, and takes in the answer.
    fn step(&mut self, client: &mut Client, crew: &Crew, chance: u64) -> Result<(), Error> {
        match self.known {
            Known::Starting => {
                let sent = Utc::now();
                let sql = "SELECT session_id FROM presence.start_session(user_id => $1, session_token => $2)";
                let row = client.query_one(sql, &[&self.user, &self.token])?;
                let id = row.get(0);
                self.known = Known::Live { id, beaten: sent };
                crew.logins.fetch_add(1, Ordering::Relaxed);
                if self.keeps {
                    crew.keepers.lock().expect("the keepers").push(self.user);
                }
            }
            Known::Live { id, .. } if !self.keeps && chance.is_multiple_of(8) => {
                self.known = Known::Ending(id);
                self.end(client, crew, id)?;
            }
            Known::Live { id, .. } => {
                let sent = Utc::now();
                let row = client.query_one("SELECT presence.heartbeat($1)", &[&id])?;
                let answer: String = row.get(0);
                assert_eq!(
                    answer, "ok",
                    "an acknowledged login of {} is lost",
                    self.user
                );
                self.known = Known::Live { id, beaten: sent };
                crew.beats.fetch_add(1, Ordering::Relaxed);
            }
            Known::Ending(id) => self.end(client, crew, id)?,
            Known::Ended(id) => {
                let row = client.query_one("SELECT presence.heartbeat($1)", &[&id])?;
                let answer: String = row.get(0);
                assert_ne!(
                    answer, "ok",
                    "an acknowledged logout of {} is undone",
                    self.user
                );
                // The next login is of the same user.
                if chance.is_multiple_of(4) {
                    *self = Session::new(self.user, false);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, client: &mut Client, crew: &Crew, id: Uuid) -> Result<(), Error> {
        client.query_one("SELECT presence.end_session($1)", &[&id])?;
        self.known = Known::Ended(id);
        crew.logouts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Asserts that a crash has taken nothing away.
    fn check(&mut self, client: &mut Client, crew: &Crew) -> Result<(), Error> {
        let Known::Live { id, beaten } = self.known else {
            return Ok(());
        };
        let row = client.query_one("SELECT presence.is_online($1)", &[&self.user])?;
        assert!(
            row.get::<_, bool>(0),
            "{} is not online any more",
            self.user
        );
        let sql = "SELECT last_activity FROM presence.user_sessions WHERE id = $1";
        let kept: DateTime<Utc> = client.query_one(sql, &[&id])?.get(0);
        assert!(
            self.in_table
                .replace(kept)
                .is_none_or(|before| before <= kept),
            "the last activity of {} has gone back",
            self.user
        );
        let lost = beaten - kept;
        assert!(lost < LOSS, "{lost} of freshness are lost");
        let mut worst = crew.loss.lock().expect("the loss");
        *worst = lost.max(*worst);
        Ok(())
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
        let worked = sessions
            .iter_mut()
            .try_for_each(|session| session.check(&mut client, crew))
            .and_then(|()| {
                while !crew.stop.load(Ordering::Relaxed) {
                    let at = chance() as usize % sessions.len();
                    sessions[at].step(&mut client, crew, chance())?;
                }
                sessions
                    .iter_mut()
                    .try_for_each(|session| match session.known {
                        Known::Live { id, .. } | Known::Ending(id) => {
                            session.end(&mut client, crew, id)
                        }
                        Known::Starting => {
                            session.step(&mut client, crew, 1)?;
                            session.keeps = false;
                            session.step(&mut client, crew, 0)
                        }
                        Known::Ended(_) => Ok(()),
                    })
            });
        match worked {
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
