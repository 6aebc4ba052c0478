//! A connection that costs next to nothing: it writes messages and reads until the server is ready, so that what is
//! measured is the server.

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

/// A connection to a database as a role, with at most one prepared statement.
pub struct Connection {
    stream: UnixStream,
    out: BytesMut,
    input: BytesMut,
    /// The backend's process id.
    pub pid: i32,
    /// Payloads of the notifications received, and while `keep_rows` is set the first column of each row.
    pub payloads: Vec<String>,
    pub keep_rows: bool,
}

impl Connection {
    pub fn connect(socket: &Path, database: &str, role: &str) -> Connection {
        let stream = UnixStream::connect(socket).expect("connect to the server");
        let mut connection = Connection {
            stream,
            out: BytesMut::new(),
            input: BytesMut::new(),
            pid: 0,
            payloads: Vec::new(),
            keep_rows: false,
        };
        let parameters = [("user", role), ("database", database)];
        frontend::startup_message(parameters, &mut connection.out).expect("short names");
        connection.flush();
        connection.until_ready();
        connection
    }

    /// Runs SQL and discards its rows, unless `keep_rows` is set.
    pub fn run(&mut self, sql: &str) {
        frontend::query(sql, &mut self.out).expect("SQL without NUL");
        self.flush();
        self.until_ready();
    }

    /// Prepares the statement that `execute` executes.
    pub fn prepare(&mut self, sql: &str) {
        frontend::parse(STATEMENT, sql, [], &mut self.out).expect("SQL without NUL");
        frontend::sync(&mut self.out);
        self.flush();
        self.until_ready();
    }

    /// Executes the prepared statement with at most one binary parameter.
    pub fn execute(&mut self, parameter: Option<&[u8]>) {
        self.execute_with(parameter.as_slice());
    }

    /// Executes the prepared statement with binary parameters.
    pub fn execute_with(&mut self, parameters: &[impl AsRef<[u8]>]) {
        let bound = frontend::bind(
            "",
            STATEMENT,
            [1],
            parameters,
            |bytes, out| {
                out.extend_from_slice(bytes.as_ref());
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
    pub fn wait_for_notifications(&mut self, timeout: Duration) {
        self.stream
            .set_read_timeout(Some(timeout))
            .expect("a timeout above zero");
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(n) => {
                assert!(n > 0, "the server closed the connection");
                self.input.extend_from_slice(&chunk[..n]);
                self.parse();
            }
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "{error}"
            ),
        }
        self.stream.set_read_timeout(None).expect("no timeout");
    }

    fn flush(&mut self) {
        self.stream.write_all(&self.out).expect("write to the server");
        self.out.clear();
    }

    fn until_ready(&mut self) {
        let mut chunk = [0; 4096];
        while !self.parse() {
            let n = self.stream.read(&mut chunk).expect("read from the server");
            assert!(n > 0, "the server closed the connection");
            self.input.extend_from_slice(&chunk[..n]);
        }
    }

    /// Processes what has been received; returns whether the server is ready for the next query.
    fn parse(&mut self) -> bool {
        while let Some(message) = Message::parse(&mut self.input).expect("a valid message") {
            match message {
                Message::ReadyForQuery(_) => return true,
                Message::BackendKeyData(key) => self.pid = key.process_id(),
                Message::NotificationResponse(notification) => {
                    let payload = notification.message().expect("a payload in UTF-8");
                    self.payloads.push(payload.to_owned());
                }
                Message::DataRow(row) if self.keep_rows => {
                    let first = row.ranges().next().expect("a row").flatten();
                    let bytes = &row.buffer()[first.expect("a value")];
                    self.payloads.push(String::from_utf8_lossy(bytes).into_owned());
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

/// The name of the prepared statement.
const STATEMENT: &str = "s";
