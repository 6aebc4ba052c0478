//! A connection that costs next to nothing: it sends prepared messages and reads until the server is ready, so that
//! what is measured is the server.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::{
    IsNull,
    message::{backend::Message, frontend},
};

use crate::{contest::Line, random::Random};

/// A connection as one role to one database.
pub struct Wire {
    stream: UnixStream,
    out: BytesMut,
    input: BytesMut,
    /// The server process that answers.
    pub pid: i32,
    /// Payloads that came unasked, until somebody takes them; and while `keeps_rows`, the first column of each row.
    pub payloads: Vec<String>,
    pub keeps_rows: bool,
}

impl Wire {
    pub fn connect(socket: &Path, database: &str, role: &str) -> Wire {
        let stream = UnixStream::connect(socket).expect("the server's socket");
        let mut wire = Wire {
            stream,
            out: BytesMut::new(),
            input: BytesMut::new(),
            pid: 0,
            payloads: Vec::new(),
            keeps_rows: false,
        };
        let parameters = [("user", role), ("database", database)];
        frontend::startup_message(parameters, &mut wire.out).expect("short names");
        wire.flush();
        wire.until_ready();
        wire
    }

    /// Runs SQL and throws its rows away.
    pub fn run(&mut self, sql: &str) {
        frontend::query(sql, &mut self.out).expect("SQL without NUL");
        self.flush();
        self.until_ready();
    }

    /// Prepares the statement that is executed from now on.
    pub fn prepare(&mut self, sql: &str) {
        frontend::parse(STATEMENT, sql, [], &mut self.out).expect("SQL without NUL");
        frontend::sync(&mut self.out);
        self.flush();
        self.until_ready();
    }

    /// Executes the prepared statement with at most one binary parameter.
    pub fn execute(&mut self, parameter: Option<&[u8]>) {
        let bound = frontend::bind(
            "",
            STATEMENT,
            [1],
            parameter,
            |bytes: &[u8], out| {
                out.extend_from_slice(bytes);
                Ok(IsNull::No)
            },
            [1],
            &mut self.out,
        );
        assert!(bound.is_ok(), "a parameter that fits");
        frontend::execute("", 0, &mut self.out).expect("a short name");
        frontend::sync(&mut self.out);
        self.flush();
        self.until_ready();
    }

    /// Waits for notifications, at most this long.
    pub fn listen(&mut self, patience: Duration) {
        self.stream
            .set_read_timeout(Some(patience))
            .expect("a timeout above zero");
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(n) => {
                assert!(n > 0, "the server has closed the connection");
                self.input.extend_from_slice(&chunk[..n]);
                self.parse();
            }
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "{error}"
            ),
        }
        self.stream
            .set_read_timeout(None)
            .expect("to wait for ever");
    }

    fn flush(&mut self) {
        self.stream
            .write_all(&self.out)
            .expect("to write to the server");
        self.out.clear();
    }

    fn until_ready(&mut self) {
        let mut chunk = [0; 4096];
        while !self.parse() {
            let n = self
                .stream
                .read(&mut chunk)
                .expect("to read from the server");
            assert!(n > 0, "the server has closed the connection");
            self.input.extend_from_slice(&chunk[..n]);
        }
    }

    /// Takes in what has come; returns whether the server is ready for more.
    fn parse(&mut self) -> bool {
        while let Some(message) = Message::parse(&mut self.input).expect("the protocol") {
            match message {
                Message::ReadyForQuery(_) => return true,
                Message::BackendKeyData(key) => self.pid = key.process_id(),
                Message::NotificationResponse(said) => {
                    let payload = said.message().expect("a payload in UTF-8");
                    self.payloads.push(payload.to_owned());
                }
                Message::DataRow(row) if self.keeps_rows => {
                    let first = row.ranges().next().expect("a row").flatten();
                    let bytes = &row.buffer()[first.expect("a value")];
                    self.payloads
                        .push(String::from_utf8_lossy(bytes).into_owned());
                }
                Message::ErrorResponse(error) => {
                    let fields: Vec<String> = error
                        .fields()
                        .map(|field| Ok(String::from_utf8_lossy(field.value_bytes()).into_owned()))
                        .collect()
                        .expect("fields");
                    panic!("{}", fields.join(" | "));
                }
                _ => {}
            }
        }
        false
    }
}

const STATEMENT: &str = "s";

/// Writes the parameter of one execution; returns how many operations it is for.
pub type Parameter = fn(&mut Random, u64, &mut Vec<u8>) -> u64;

/// A prepared statement, executed over and over.
pub struct Statement {
    wire: Wire,
    /// How many sessions there are to choose from.
    sessions: u64,
    parameter: Option<Parameter>,
    bytes: Vec<u8>,
}

impl Statement {
    pub fn new(
        mut wire: Wire,
        sql: &str,
        sessions: u64,
        parameter: Option<Parameter>,
    ) -> Statement {
        wire.prepare(sql);
        Statement {
            wire,
            sessions,
            parameter,
            bytes: Vec::new(),
        }
    }
}

impl Statement {
    /// Executes it once; returns the first column of what it answers.
    pub fn answer(&mut self, random: &mut Random) -> String {
        self.wire.keeps_rows = true;
        self.once(random);
        self.wire.keeps_rows = false;
        self.wire.payloads.pop().unwrap_or_default()
    }
}

impl Line for Statement {
    fn once(&mut self, random: &mut Random) -> u64 {
        let Some(parameter) = self.parameter else {
            self.wire.execute(None);
            return 1;
        };
        self.bytes.clear();
        let operations = parameter(random, self.sessions, &mut self.bytes);
        self.wire.execute(Some(&self.bytes));
        operations
    }

    fn pid(&self) -> i32 {
        self.wire.pid
    }
}
