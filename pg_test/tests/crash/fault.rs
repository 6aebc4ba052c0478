//! What is killed, and when.

use std::{fs::File, time::Duration};

use pg_presence_test::{Database, Rng, Shutdown, signal, wait_until};
use postgres::{Client, NoTls};

/// One way to crash.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Kills a process that matches this condition, at a random moment.
    KillProcess(&'static str),
    /// Kills the postmaster.
    KillServer,
    /// Kills the first process that reaches this fault point; see `src/pg/fault_point.rs`.
    AtFaultPoint(&'static str),
    /// The same, for fault points of the recovery from another crash.
    InRecovery(&'static str),
}

const BACKEND: Fault = Fault::KillProcess("backend_type = 'client backend' AND application_name = 'workload'");
const WORKER: Fault = Fault::KillProcess("backend_type = 'pg_presence worker'");
const LAUNCHER: Fault = Fault::KillProcess("backend_type = 'pg_presence launcher'");

/// At random moments.
const RANDOM: &[Fault] = &[BACKEND, WORKER, Fault::KillServer, LAUNCHER];
/// At the worst moments.
const AT_FAULT_POINTS: &[Fault] = &[
    Fault::AtFaultPoint("commit"),
    Fault::AtFaultPoint("write"),
    Fault::AtFaultPoint("written"),
    Fault::AtFaultPoint("notify"),
    Fault::AtFaultPoint("flush"),
    Fault::AtFaultPoint("flushed"),
    Fault::AtFaultPoint("cleanup"),
    Fault::InRecovery("load"),
    Fault::InRecovery("loaded"),
];

impl Fault {
    /// Returns every fault point once, with this many random faults in between.
    pub fn plan(random: usize, rng: &mut Rng) -> Vec<Fault> {
        let mut faults = AT_FAULT_POINTS.to_vec();
        for _ in 0..random {
            let at = rng.below(faults.len() as u64 + 1) as usize;
            faults.insert(at, *rng.pick(RANDOM));
        }
        faults
    }

    /// How long to wait before it: a random time, or none where the fault point decides the moment.
    pub fn delay(self, rng: &mut Rng) -> Duration {
        match self {
            Fault::KillProcess(_) | Fault::KillServer => Duration::from_millis(rng.below(2000)),
            Fault::AtFaultPoint(_) | Fault::InRecovery(_) => Duration::ZERO,
        }
    }

    /// Injects the fault, and waits until the server is up again and its worker serves the database.
    pub fn inject(self, database: &Database) {
        match self {
            Fault::KillProcess(which) => kill_one(database, which),
            Fault::KillServer => database.cluster.restart(Shutdown::Kill),
            Fault::AtFaultPoint(point) => {
                let mut witness = database.connect();
                let file = arm(database, point);
                wait_until(&format!("{self:?} to be reached"), || !file.exists());
                wait_until_disconnected(&mut witness);
            }
            Fault::InRecovery(point) => {
                let file = arm(database, point);
                let Fault::KillProcess(worker) = WORKER else {
                    unreachable!("a process")
                };
                kill_one(database, worker);
                wait_until(&format!("{self:?} to be reached"), || !file.exists());
            }
        }
        wait_until("the server and its worker to be up again", || served(database));
    }
}

fn arm(database: &Database, point: &str) -> std::path::PathBuf {
    let file = database.cluster.data().join(format!("presence_test.{point}"));
    File::create(&file).expect("a file for the fault point");
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
    wait_until_disconnected(&mut witness);
}

/// Waits until the postmaster, which has noticed that a child has crashed, closes every connection.
fn wait_until_disconnected(witness: &mut Client) {
    wait_until("the server notices the crash and closes every connection", || {
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
