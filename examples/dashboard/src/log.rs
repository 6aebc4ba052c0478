//! The log, on standard output and standard error. A thread of its own writes it, so that nobody waits for whoever
//! reads it: what does not fit into the queue is dropped, and counted.

use std::io::{Write, stderr, stdout};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

const MAX_QUEUED: usize = 1000;

enum Line {
    Info(String),
    Error(String),
}

static QUEUE: LazyLock<SyncSender<Line>> = LazyLock::new(|| {
    let (sender, lines) = sync_channel(MAX_QUEUED);
    thread::spawn(move || write(&lines));
    sender
});
static DROPPED: AtomicU64 = AtomicU64::new(0);

pub fn info(line: String) {
    queue(Line::Info(line));
}

pub fn error(line: String) {
    queue(Line::Error(line));
}

/// Escapes the control and bidirectional characters of a text from elsewhere: they could forge a line, or reverse it.
pub fn escape(text: &str) -> String {
    let quoted = format!("{text:?}");
    quoted[1..quoted.len() - 1].to_owned()
}

fn queue(line: Line) {
    if QUEUE.try_send(line).is_err() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes the lines. One that cannot be written is lost: there is nobody to tell.
fn write(lines: &Receiver<Line>) {
    for line in lines {
        let _ = match line {
            Line::Info(line) => writeln!(stdout(), "{line}"),
            Line::Error(line) => writeln!(stderr(), "error: {line}"),
        };
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = writeln!(
                stderr(),
                "error: {dropped} lines were not logged, because nobody read the log"
            );
        }
    }
}
