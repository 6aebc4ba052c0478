//! A program that runs beside a test.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use pg_presence_test::{signal, wait_for, wait_until};

/// A running program, and its output so far.
pub struct Running {
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// Also if a test has failed meanwhile.
fn lock(output: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    pub fn new(program: &mut Command) -> Running {
        let mut child = program
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // In a process group of its own, so that the programs of a script end with it.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let output = Arc::new(Mutex::new(Vec::new()));
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("a pipe")),
            Box::new(child.stderr.take().expect("a pipe")),
        ];
        let readers = streams.map(|stream| {
            let output = Arc::clone(&output);
            thread::spawn(move || {
                for line in BufReader::new(stream).lines() {
                    lock(&output).push(line.expect("UTF-8"));
                }
            })
        });
        Running {
            child,
            output,
            readers: readers.into(),
        }
    }

    pub fn output(&self) -> Vec<String> {
        lock(&self.output).clone()
    }

    /// Sends it a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        signal(name, i32::try_from(self.child.id()).expect("a process id"));
    }

    /// Leaves what it prints in the pipe, until the result is dropped.
    pub fn stop_reading(&self) -> MutexGuard<'_, Vec<String>> {
        // The readers need it for each line.
        lock(&self.output)
    }

    pub fn wait_for(&self, what: impl Fn(&str) -> bool) {
        wait_until("a program to print it", || self.output().iter().any(|line| what(line)));
    }

    /// Waits until it exits successfully, and returns its output.
    pub fn end(mut self) -> Vec<String> {
        let status = wait_for("a program to end", || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            reader.join().expect("its output");
        }
        let output = self.output();
        assert!(status.success(), "{status}: {output:?}");
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{:?}", self.output());
        }
        if let Ok(None) = self.child.try_wait() {
            let kill = format!("kill -s TERM -- -{}", self.child.id());
            let _ = Command::new("sh").args(["-c", &kill]).status();
            let _ = self.child.wait();
        }
    }
}
