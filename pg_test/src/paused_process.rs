//! A process of the server that does not go on.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Database, process::signal, wait::wait_until};

/// A process that waits at a point of its code. It continues when this is dropped, on a panic too.
pub struct PausedProcess {
    pid: i32,
    asked: PathBuf,
    reached: PathBuf,
}

impl Database<'_> {
    /// Pauses the worker when it has nothing to do and holds no lock. A worker stopped by a signal may hold one, and who
    /// waits for that can be neither cancelled nor terminated.
    pub fn pause_worker(&self) -> PausedProcess {
        let worker = self.pause_worker_at("idle");
        worker.wait_until_reached();
        worker
    }

    /// Lets the worker run until it reaches this point of its code; see `src/pg/fault_point.rs`.
    pub fn pause_worker_at(&self, point: &str) -> PausedProcess {
        self.pause_at(self.worker(), point)
    }

    /// The same, of any process.
    pub fn pause_at(&self, pid: i32, point: &str) -> PausedProcess {
        // A process that is still where it was to wait before has not reached it again.
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let reached = format!(
            "presence_test.{point}_paused.{}",
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let data = self.cluster.data();
        let paused = PausedProcess {
            pid,
            asked: data.join(format!("presence_test.{point}_pause.{pid}")),
            reached: data.join(&reached),
        };
        // Renamed, so that the process reads the whole name.
        let new = data.join(format!("{reached}.new"));
        fs::write(&new, reached).expect("a file in the data directory");
        fs::rename(new, &paused.asked).expect("a file in the data directory");
        paused
    }
}

impl PausedProcess {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns once it is where it was to wait.
    pub fn wait_until_reached(&self) {
        wait_until("the process to pause", || self.reached.exists());
    }

    /// Kills it, which makes the server restart.
    pub fn kill(self) {
        signal("KILL", self.pid);
    }

    /// Lets it continue.
    pub fn resume(self) {}
}

impl Drop for PausedProcess {
    fn drop(&mut self) {
        // A test may have removed the server.
        let _ = fs::remove_file(&self.asked);
        let _ = fs::remove_file(&self.reached);
    }
}
