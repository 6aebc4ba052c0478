//! A point of the server's code that fails.

use std::{fs, path::PathBuf};

use crate::Cluster;

/// It fails until this is dropped.
pub struct Failure(PathBuf);

impl Cluster {
    /// Makes what the server does at this point of its code fail; see `src/pg/fault_point.rs`.
    pub fn fail_at(&self, point: &str) -> Failure {
        let file = self.data().join(format!("presence_test.{point}_error"));
        fs::write(&file, "").expect("a file in the data directory");
        Failure(file)
    }
}

impl Drop for Failure {
    fn drop(&mut self) {
        // A test may have removed the server.
        let _ = fs::remove_file(&self.0);
    }
}
