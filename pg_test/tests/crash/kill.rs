//! Who is killed, and when.

use std::{fs::File, time::Duration};

use pg_presence_test::{Database, Dice, Shutdown, signal, wait_until};
use postgres::{Client, NoTls};

/// One way to crash.
#[derive(Clone, Copy, Debug)]
pub enum Kill {
    /// Some process of this kind, at whatever moment it is in.
    Process(&'static str),
    /// `kill -9` of the postmaster.
    Server,
    /// Whoever comes first to this moment; `src/faults.rs` has them.
    Moment(&'static str),
    /// The same, for moments of the recovery from another crash.
    Recovery(&'static str),
}

const BACKEND: Kill =
    Kill::Process("backend_type = 'client backend' AND application_name = 'crew'");
const WORKER: Kill = Kill::Process("backend_type = 'pg_presence worker'");
const LAUNCHER: Kill = Kill::Process("backend_type = 'pg_presence launcher'");

/// At whatever moment.
const RANDOM: &[Kill] = &[BACKEND, WORKER, Kill::Server, LAUNCHER];
/// At the worst moments.
const NAMED: &[Kill] = &[
    Kill::Moment("commit"),
    Kill::Moment("write"),
    Kill::Moment("written"),
    Kill::Moment("notify"),
    Kill::Moment("flush"),
    Kill::Moment("flushed"),
    Kill::Moment("cleanup"),
    Kill::Recovery("load"),
    Kill::Recovery("loaded"),
];

impl Kill {
    /// So many at random, with all that have a name among them.
    pub fn some(random: usize, dice: &mut Dice) -> Vec<Kill> {
        let mut kills = NAMED.to_vec();
        for _ in 0..random {
            let at = dice.roll(kills.len() as u64 + 1) as usize;
            kills.insert(at, *dice.pick(RANDOM));
        }
        kills
    }

    /// Until when to wait before it: a moment that is named comes by itself, any other one is the dice's choice.
    pub fn delay(self, dice: &mut Dice) -> Duration {
        match self {
            Kill::Process(_) | Kill::Server => Duration::from_millis(dice.roll(2000)),
            Kill::Moment(_) | Kill::Recovery(_) => Duration::ZERO,
        }
    }

    /// Strikes, and returns when the server is back and its worker at work.
    pub fn strike(self, database: &Database) {
        match self {
            Kill::Process(which) => kill_one(database, which),
            Kill::Server => database.cluster.restart(Shutdown::Kill),
            Kill::Moment(moment) => {
                let mut witness = database.connect();
                let file = arm(database, moment);
                wait_until(&format!("{self:?} to be reached"), || !file.exists());
                wait_until_cut(&mut witness);
            }
            Kill::Recovery(moment) => {
                let file = arm(database, moment);
                let Kill::Process(worker) = WORKER else {
                    unreachable!("a process")
                };
                kill_one(database, worker);
                wait_until(&format!("{self:?} to be reached"), || !file.exists());
            }
        }
        wait_until("the server and its worker to be back", || served(database));
    }
}

fn arm(database: &Database, moment: &str) -> std::path::PathBuf {
    let file = database
        .cluster
        .data()
        .join(format!("presence_test.{moment}"));
    File::create(&file).expect("a file for the moment");
    file
}

fn kill_one(database: &Database, which: &str) {
    let mut witness = database.connect();
    let sql = format!("SELECT pid FROM pg_stat_activity WHERE {which} ORDER BY random() LIMIT 1");
    let mut victim = None;
    wait_until("a victim", || {
        victim = witness.query_opt(&sql, &[]).expect("the processes");
        victim.is_some()
    });
    signal("KILL", victim.expect("a victim").get(0));
    wait_until_cut(&mut witness);
}

/// The postmaster cuts every connection when one of its children has crashed.
fn wait_until_cut(witness: &mut Client) {
    wait_until("the crash is noticed, and every connection cut", || {
        witness.batch_execute("SELECT 1").is_err()
    });
}

fn served(database: &Database) -> bool {
    let config = database.cluster.config(&database.name, "postgres");
    let sql = "SELECT coalesce(is_complete AND last_tick_at IS NOT NULL, false) FROM presence.presence_stats";
    config
        .connect(NoTls)
        .and_then(|mut client| client.query_one(sql, &[]))
        .is_ok_and(|row| row.get(0))
}
