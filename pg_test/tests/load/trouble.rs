//! What a worker may have to live with.

use pg_presence_test::{Database, Install, signal, wait_until};

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
                let worker = database.worker();
                signal("STOP", worker);
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
                               WHERE backend_type = 'pg_presence worker'";
                    let Some(row) = client.query_opt(sql, &[]).expect("the processes") else {
                        return false;
                    };
                    if !row.get::<_, bool>(1) {
                        signal("TERM", row.get(0));
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

fn complaints(database: &Database) -> usize {
    database
        .cluster
        .log()
        .matches("No space left on device")
        .count()
}
