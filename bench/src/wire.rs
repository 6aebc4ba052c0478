//! A connection that costs next to nothing: it sends prepared messages and reads until the server is ready, so that
//! what is measured is the server.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::{
    IsNull,
    message::{backend::Message, frontend},
};

/// A connection as one role to one database.
pub struct Wire {
    stream: UnixStream,
    out: BytesMut,
    input: BytesMut,
    /// The server process that answers.
    pub pid: i32,
}

impl Wire {
    pub fn connect(socket: &Path, database: &str, role: &str) -> Wire {
        let stream = UnixStream::connect(socket).expect("the server's socket");
        let mut wire = Wire {
            stream,
            out: BytesMut::new(),
            input: BytesMut::new(),
            pid: 0,
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

    /// Prepares a statement under a name.
    pub fn prepare(&mut self, name: &str, sql: &str) {
        frontend::parse(name, sql, [], &mut self.out).expect("SQL without NUL");
        frontend::sync(&mut self.out);
        self.flush();
        self.until_ready();
    }

    /// Executes a prepared statement with at most one binary parameter.
    pub fn execute(&mut self, name: &str, parameter: Option<&[u8]>) {
        let bound = frontend::bind(
            "",
            name,
            [1],
            parameter,
            |bytes: &[u8], out| {
                out.extend_from_slice(bytes);
                Ok(IsNull::No)
            },
            [1],
            &mut self.out,
        );
        assert!(bound.is_ok(), "a short parameter");
        frontend::execute("", 0, &mut self.out).expect("a short name");
        frontend::sync(&mut self.out);
        self.flush();
        self.until_ready();
    }

    fn flush(&mut self) {
        self.stream
            .write_all(&self.out)
            .expect("to write to the server");
        self.out.clear();
    }

    fn until_ready(&mut self) {
        let mut chunk = [0; 4096];
        loop {
            while let Some(message) = Message::parse(&mut self.input).expect("the protocol") {
                match message {
                    Message::ReadyForQuery(_) => return,
                    Message::BackendKeyData(key) => self.pid = key.process_id(),
                    Message::ErrorResponse(error) => {
                        let fields: Vec<String> = error
                            .fields()
                            .map(|field| {
                                Ok(String::from_utf8_lossy(field.value_bytes()).into_owned())
                            })
                            .collect()
                            .expect("fields");
                        panic!("{}", fields.join(" | "));
                    }
                    _ => {}
                }
            }
            let n = self
                .stream
                .read(&mut chunk)
                .expect("to read from the server");
            assert!(n > 0, "the server has closed the connection");
            self.input.extend_from_slice(&chunk[..n]);
        }
    }
}
