//! What disturbs the worker.

use pg_presence_test::{Database, Install, signal, try_signal, wait_for, wait_until};

use crate::disk::SmallDisk;

#[derive(Clone, Copy, Debug)]
pub enum Disturbance {
    /// It gets no processor time.
    Paused,
    /// It is terminated, and another one starts.
    Terminated,
    /// It is killed, and the server restarts.
    Killed,
    /// Somebody locks a table of the extension.
    Locked,
    /// The disk of the feed is full.
    DiskFull,
    /// Another database's worker has its slot.
    NoSlot,
}

impl Disturbance {
    pub const ALL: &[Disturbance] = &[
        Disturbance::Killed,
        Disturbance::Paused,
        Disturbance::Terminated,
        Disturbance::Locked,
        Disturbance::DiskFull,
        Disturbance::NoSlot,
    ];

    /// Starts the disturbance, runs `meanwhile`, and ends it.
    pub fn apply(self, database: &Database, disk: &SmallDisk, meanwhile: impl FnOnce()) {
        match self {
            Disturbance::Paused => {
                let worker = pause(database);
                meanwhile();
                signal("CONT", worker);
            }
            Disturbance::Terminated => {
                let worker = database.worker();
                signal("TERM", worker);
                database.new_worker(worker);
                meanwhile();
            }
            Disturbance::Killed => {
                let mut witness = database.connect();
                signal("KILL", database.worker());
                wait_until("the server notices the crash and closes every connection", || {
                    witness.batch_execute("SELECT 1").is_err()
                });
                meanwhile();
            }
            Disturbance::Locked => {
                let mut client = database.connect();
                let mut holds = client.transaction().expect("a transaction");
                holds
                    .batch_execute("LOCK TABLE presence.user_presence IN SHARE MODE")
                    .expect("the lock");
                meanwhile();
                holds.rollback().expect("a rollback");
            }
            Disturbance::DiskFull => {
                let before = disk_full_errors(database);
                disk.fill();
                wait_until("the full disk to be noticed", || disk_full_errors(database) > before);
                meanwhile();
                disk.free();
            }
            Disturbance::NoSlot => {
                let rival = database.cluster.database_with(Install::Presence);
                wait_until("the other worker to get the slot", || {
                    let mut client = rival.connect();
                    let sql = "SELECT pid, datname = current_database() FROM pg_stat_activity
                               WHERE backend_type = 'pg_presence worker' ORDER BY backend_start DESC LIMIT 1";
                    let Some(row) = client.query_opt(sql, &[]).expect("the processes") else {
                        return false;
                    };
                    if !row.get::<_, bool>(1) {
                        try_signal("TERM", row.get(0));
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

/// Stops the worker outside of a transaction, as within one it may hold locks that others wait for.
fn pause(database: &Database) -> i32 {
    let mut witness = database.connect();
    // The query waits for a process that is stopped while it updates its status.
    witness
        .batch_execute("SET statement_timeout = '1s'")
        .expect("a setting");
    let sql = "SELECT FROM pg_stat_activity WHERE pid = $1 AND xact_start IS NULL";
    wait_for("the worker to be stopped outside of a transaction", || {
        let worker = database.worker();
        try_signal("STOP", worker);
        let mut is_idle = || witness.query_opt(sql, &[&worker]).is_ok_and(|row| row.is_some());
        if is_stopped(worker) && is_idle() {
            return Some(worker);
        }
        try_signal("CONT", worker);
        None
    })
}

/// Waits until a process is stopped; returns false if it has exited instead.
fn is_stopped(pid: i32) -> bool {
    wait_for("a process to stop", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        match status.split_once("State:\t") {
            Some((_, state)) if state.starts_with('T') => Some(true),
            Some((_, state)) if !state.starts_with('Z') => None,
            _ => Some(false),
        }
    })
}

fn disk_full_errors(database: &Database) -> usize {
    database.cluster.log().matches("No space left on device").count()
}
