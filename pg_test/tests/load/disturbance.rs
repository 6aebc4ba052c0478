//! What disturbs the worker.

use pg_presence_test::{Database, Install, signal, try_signal, wait_until};

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
                let worker = database.pause_worker();
                meanwhile();
                worker.resume();
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
                        try_signal("TERM", &[row.get(0)]);
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

fn disk_full_errors(database: &Database) -> usize {
    database.cluster.log().matches("No space left on device").count()
}
