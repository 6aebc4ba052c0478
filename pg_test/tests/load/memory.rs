//! What processes of the server hold of memory of their own.

use std::collections::BTreeMap;

use pg_presence_test::{Database, figure};

/// Kilobytes of growth that are none: what a process allocates once and keeps, measured between two crashes. In that time
/// a backend answers some hundred times, so a leak of two kilobytes an answer is more.
const OF_A_BACKEND: i64 = 1 << 10;
/// The worker's batches are the larger the longer it had to wait for the processor.
const OF_THE_WORKER: i64 = 4 << 10;

/// The kilobytes of each process, and whether it is a worker.
pub struct Memory(BTreeMap<i32, (bool, i64)>);

/// By how many kilobytes processes have grown, at most.
#[derive(Clone, Copy, Default)]
pub struct Growth {
    worker: i64,
    backend: i64,
}

impl Memory {
    /// What each has now.
    pub fn of(database: &Database) -> Memory {
        let sql = "SELECT pid, backend_type = 'pg_presence worker' FROM pg_stat_activity
                   WHERE datname = current_database()
                       AND (backend_type = 'pg_presence worker' OR application_name = 'crew')";
        let rows = database.connect().query(sql, &[]).expect("the processes");
        let each = rows.iter().filter_map(|row| {
            let pid: i32 = row.get(0);
            Some((pid, (row.get(1), anonymous(pid)?)))
        });
        Memory(each.collect())
    }

    /// How much those processes have grown that were there then.
    pub fn since(&self, before: &Memory) -> Growth {
        let mut growth = Growth::default();
        for (pid, (is_worker, now)) in &self.0 {
            let Some((_, then)) = before.0.get(pid) else {
                continue;
            };
            let most = match is_worker {
                true => &mut growth.worker,
                false => &mut growth.backend,
            };
            *most = (now - then).max(*most);
        }
        growth
    }
}

impl Growth {
    pub fn max(self, other: Growth) -> Growth {
        Growth {
            worker: self.worker.max(other.worker),
            backend: self.backend.max(other.backend),
        }
    }

    pub fn assert_flat(self) {
        figure(&format!(
            "memory grew by {} kB in the worker, by {} kB in a backend at most",
            self.worker, self.backend
        ));
        assert!(self.worker < OF_THE_WORKER, "the worker leaks");
        assert!(self.backend < OF_A_BACKEND, "a backend leaks");
    }
}

/// Kilobytes that are nobody else's; shared memory does not count.
fn anonymous(pid: i32) -> Option<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
