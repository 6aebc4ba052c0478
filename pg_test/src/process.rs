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

/// Sends a signal, unless the process has exited meanwhile.
pub fn try_signal(name: &str, pid: i32) {
    let kill = format!("kill -s {name} {pid}");
    let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
}
