//! The private memory of the server's processes.

use std::collections::BTreeMap;

use pg_presence_test::{Database, report};

/// Tolerated growth in kilobytes, measured between two crashes: what a process allocates once and keeps. A backend answers
/// hundreds of calls in that time, so a leak of two kilobytes a call exceeds this.
const BACKEND_TOLERANCE: i64 = 1 << 10;
/// More, as the worker's batches are larger the longer it has waited for a processor.
const WORKER_TOLERANCE: i64 = 4 << 10;

/// By process id: whether it is a worker, and its kilobytes.
pub struct Memory(BTreeMap<i32, (bool, i64)>);

/// The largest growth of a process, in kilobytes.
#[derive(Clone, Copy, Default)]
pub struct Growth {
    worker: i64,
    backend: i64,
}

impl Memory {
    /// Measures the worker and the clients' backends.
    pub fn of(database: &Database) -> Memory {
        let sql = "SELECT pid, backend_type = 'pg_presence worker' FROM pg_stat_activity
                   WHERE datname = current_database()
                       AND (backend_type = 'pg_presence worker' OR application_name = 'workload')";
        let rows = database.connect().query(sql, &[]).expect("the processes");
        let each = rows.iter().filter_map(|row| {
            let pid: i32 = row.get(0);
            Some((pid, (row.get(1), anonymous(pid)?)))
        });
        Memory(each.collect())
    }

    /// Returns the growth of the processes that existed before.
    pub fn since(&self, before: &Memory) -> Growth {
        let mut growth = Growth::default();
        for (pid, (is_worker, now)) in &self.0 {
            let Some((_, then)) = before.0.get(pid) else {
                continue;
            };
            let largest = match is_worker {
                true => &mut growth.worker,
                false => &mut growth.backend,
            };
            *largest = (now - then).max(*largest);
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
        report(&format!(
            "memory grew by {} kB in the worker, by {} kB in a backend at most",
            self.worker, self.backend
        ));
        assert!(self.worker < WORKER_TOLERANCE, "the worker leaks");
        assert!(self.backend < BACKEND_TOLERANCE, "a backend leaks");
    }
}

/// Returns the kilobytes of a process's private memory.
fn anonymous(pid: i32) -> Option<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
