//! A terminal, as a reader has one: a program in a pseudo-terminal.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use pg_presence_test::wait_for;

pub struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    /// How much of the screen has been read.
    seen: usize,
}

impl Terminal {
    /// Runs a command line in a terminal. What is typed is not echoed, so the screen has the answers only.
    pub fn new(environment: &Command, command_line: &str) -> Terminal {
        let mut script = Command::new("script");
        for (name, value) in environment.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        let mut child = script
            .args(["--quiet", "--flush", "--return", "--echo", "never", "--command"])
            .arg(command_line)
            .arg("/dev/null")
            .env("SHELL", "/bin/bash")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // In a process group of its own, which can be ended as a whole.
            .process_group(0)
            .spawn()
            .expect("script, of util-linux");
        let keyboard = child.stdin.take().expect("a pipe");
        let mut output = child.stdout.take().expect("a pipe");
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        let reader = thread::spawn(move || {
            let (mut buffer, mut bytes) = ([0; 4096], Vec::new());
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                bytes.extend_from_slice(&buffer[..read]);
                // A character may still be incomplete.
                let Some(text) = bytes.utf8_chunks().next().map(|chunk| chunk.valid().to_owned()) else {
                    continue;
                };
                bytes.drain(..text.len());
                shown.lock().unwrap().push_str(&text.replace('\r', ""));
            }
        });
        Terminal {
            child,
            keyboard,
            screen,
            reader: Some(reader),
            seen: 0,
        }
    }

    /// Starts psql, and waits for its prompt.
    pub fn psql(environment: &Command) -> Terminal {
        // Without Readline, which would echo.
        let mut psql = Terminal::new(environment, "psql -X --no-readline");
        psql.answer();
        psql
    }

    /// Types a line to psql, and returns what it answers until it asks for more; and whether it then waits for the rest of
    /// a statement.
    pub fn ask(&mut self, line: &str) -> (String, bool) {
        self.type_line(line);
        self.answer()
    }

    pub fn type_line(&mut self, line: &str) {
        writeln!(self.keyboard, "{line}").unwrap_or_else(|error| panic!("{line}: {error}: {}", self.screen()));
    }

    fn answer(&mut self) -> (String, bool) {
        let start = self.seen;
        let (answer, prompt) = wait_for("psql to ask for the next line", || {
            let screen = self.screen();
            let new = &screen[start..];
            let prompt = new.rsplit('\n').next().unwrap_or_default();
            is_prompt(prompt).then(|| (new[..new.len() - prompt.len()].to_owned(), prompt.to_owned()))
        });
        self.seen = start + answer.len() + prompt.len();
        let asks_for_more = !prompt.contains('=');
        (answer, asks_for_more)
    }

    /// Everything shown so far.
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Waits until a text appears that was not there when this was last called.
    pub fn wait_for(&mut self, text: &str) {
        let start = self.seen;
        let found = wait_for(&format!("{text} in the terminal"), || self.screen()[start..].find(text));
        self.seen = start + found + text.len();
    }

    /// Waits until the program has exited, and returns what it has shown.
    pub fn end(mut self) -> String {
        let status = wait_for("the program to exit", || self.child.try_wait().expect("its status"));
        self.reader.take().expect("a reader").join().expect("its output");
        assert!(status.success(), "{status}: {}", self.screen());
        self.screen()
    }
}

/// Whether a line is psql's prompt in the database `app`.
fn is_prompt(line: &str) -> bool {
    let Some(state) = line.strip_prefix("app") else {
        return false;
    };
    let state = state.strip_suffix("# ").or(state.strip_suffix("> "));
    state.is_some_and(|state| !state.is_empty() && !state.contains(|c: char| c.is_alphanumeric() || c.is_whitespace()))
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Its terminal closes with it, and the programs in there get a hangup, as where a window is closed.
            let kill = format!("kill -s KILL -- -{}", self.child.id());
            let _ = Command::new("sh").args(["-c", &kill]).status();
            let _ = self.child.wait();
        }
    }
}
