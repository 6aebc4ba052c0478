//! Signals to processes of a server.

use std::process::{Command, Stdio};

/// Sends a signal, by its name without SIG.
pub fn signal(name: &str, pid: i32) {
    // The shell has a kill built in; not every machine has it as a program.
    let kill = format!("kill -s {name} {pid}");
    let done = Command::new("sh").args(["-c", &kill]).output().expect("sh");
    assert!(
        done.status.success(),
        "{kill}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Sends a signal to these processes, in order, but for those that have exited meanwhile.
pub fn try_signal(name: &str, pids: &[i32]) {
    let kills: String = pids.iter().map(|pid| format!("kill -s {name} {pid};")).collect();
    let _ = Command::new("sh").args(["-c", &kills]).stderr(Stdio::null()).status();
}
