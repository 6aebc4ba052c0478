//! A worker that gets no processor time.

use crate::{
    Database,
    process::{signal, try_signal},
    wait::wait_for,
};

/// A stopped worker. It continues when this is dropped, on a panic too.
pub struct PausedWorker(i32);

impl Database<'_> {
    /// Stops the worker while it waits for work, as at any other time it may hold a lock: who then waits for that lock does
    /// so for ever, and can be neither cancelled nor terminated.
    pub fn pause_worker(&self) -> PausedWorker {
        let mut witness = self.connect();
        // The query waits for a process that is stopped while it updates its status.
        witness
            .batch_execute("SET statement_timeout = '1s'")
            .expect("a setting");
        let sql = "SELECT FROM pg_stat_activity
                   WHERE pid = $1 AND xact_start IS NULL AND wait_event_type = 'Extension'";
        wait_for("the worker to be stopped while it waits", || {
            let worker = self.worker();
            try_signal("STOP", worker);
            let paused = PausedWorker(worker);
            let mut waits = || witness.query_opt(sql, &[&worker]).is_ok_and(|row| row.is_some());
            (is_stopped(worker) && waits()).then_some(paused)
        })
    }
}

impl PausedWorker {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.0
    }

    /// Kills it, which makes the server restart.
    pub fn kill(self) {
        signal("KILL", self.0);
    }

    /// Lets it continue.
    pub fn resume(self) {}
}

impl Drop for PausedWorker {
    fn drop(&mut self) {
        try_signal("CONT", self.0);
    }
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
