//! What a worker may have to live with.

use pg_presence_test::{Database, Install, signal, signal_if_there, wait_for, wait_until};

use crate::disk::Small;

#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// It does not get the processor.
    Paused,
    /// It is terminated, and another one comes.
    Terminated,
    /// It crashes, and the server with it.
    Killed,
    /// Somebody has locked a table of ours.
    Locked,
    /// There is no room for the feed.
    DiskFull,
    /// Another database's worker has taken its place.
    NoSlot,
}

impl Trouble {
    pub const ALL: &[Trouble] = &[
        Trouble::Killed,
        Trouble::Paused,
        Trouble::Terminated,
        Trouble::Locked,
        Trouble::DiskFull,
        Trouble::NoSlot,
    ];

    /// Makes the trouble, has it last for as long as `meanwhile` takes, and ends it.
    pub fn make(self, database: &Database, disk: &Small, meanwhile: impl FnOnce()) {
        match self {
            Trouble::Paused => {
                let worker = pause(database);
                meanwhile();
                signal("CONT", worker);
            }
            Trouble::Terminated => {
                let worker = database.worker();
                signal("TERM", worker);
                database.new_worker(worker);
                meanwhile();
            }
            Trouble::Killed => {
                let mut witness = database.connect();
                signal("KILL", database.worker());
                wait_until("the crash is noticed, and every connection cut", || {
                    witness.batch_execute("SELECT 1").is_err()
                });
                meanwhile();
            }
            Trouble::Locked => {
                let mut client = database.connect();
                let mut holds = client.transaction().expect("a transaction");
                holds
                    .batch_execute("LOCK TABLE presence.user_presence IN SHARE MODE")
                    .expect("the lock");
                meanwhile();
                holds.rollback().expect("a rollback");
            }
            Trouble::DiskFull => {
                let before = complaints(database);
                disk.fill();
                wait_until("the disk to be missed", || complaints(database) > before);
                meanwhile();
                disk.free();
            }
            Trouble::NoSlot => {
                let rival = database.cluster.database_with(Install::Presence);
                wait_until("the other worker to get the slot", || {
                    let mut client = rival.connect();
                    let sql = "SELECT pid, datname = current_database() FROM pg_stat_activity
                               WHERE backend_type = 'pg_presence worker' ORDER BY backend_start DESC LIMIT 1";
                    let Some(row) = client.query_opt(sql, &[]).expect("the processes") else {
                        return false;
                    };
                    if !row.get::<_, bool>(1) {
                        signal_if_there("TERM", row.get(0));
                    }
                    row.get(1)
                });
                meanwhile();
                let drop = format!("DROP DATABASE {} WITH (FORCE)", rival.name);
                let mut client = database.cluster.connect("postgres");
                client.batch_execute(&drop).expect("to drop it");
            }
        }
    }
}

/// Stops the worker outside of a transaction, as in one it may hold what others wait for.
fn pause(database: &Database) -> i32 {
    let mut witness = database.connect();
    // Whoever is stopped while it says what it does cannot be asked.
    witness
        .batch_execute("SET statement_timeout = '1s'")
        .expect("a setting");
    let sql = "SELECT FROM pg_stat_activity WHERE pid = $1 AND xact_start IS NULL";
    wait_for("the worker to stand still outside of a transaction", || {
        let worker = database.worker();
        signal_if_there("STOP", worker);
        let mut is_idle = || {
            witness
                .query_opt(sql, &[&worker])
                .is_ok_and(|row| row.is_some())
        };
        if stands_still(worker) && is_idle() {
            return Some(worker);
        }
        signal_if_there("CONT", worker);
        None
    })
}

/// Waits until a process that is to stop has; false when it has gone instead.
fn stands_still(pid: i32) -> bool {
    wait_for("a process to stop", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        match status.split_once("State:\t") {
            Some((_, state)) if state.starts_with('T') => Some(true),
            Some((_, state)) if !state.starts_with('Z') => None,
            _ => Some(false),
        }
    })
}

fn complaints(database: &Database) -> usize {
    database
        .cluster
        .log()
        .matches("No space left on device")
        .count()
}
