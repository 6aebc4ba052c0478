//! A client of PostgreSQL that executes one prepared statement over and over.

use crate::{connection::Connection, interleave::Client, random::Random};

/// Writes the parameter of one execution, for a random one of `sessions` sessions; returns the number of operations.
pub type Parameter = fn(random: &mut Random, sessions: u64, out: &mut Vec<u8>) -> u64;

pub struct SqlClient {
    connection: Connection,
    /// How many sessions the parameter chooses from.
    sessions: u64,
    parameter: Option<Parameter>,
    bytes: Vec<u8>,
}

impl SqlClient {
    pub fn new(mut connection: Connection, sql: &str, sessions: u64, parameter: Option<Parameter>) -> SqlClient {
        connection.prepare(sql);
        SqlClient {
            connection,
            sessions,
            parameter,
            bytes: Vec::new(),
        }
    }

    /// Executes the statement once; returns the first column of its last row.
    pub fn query(&mut self, random: &mut Random) -> String {
        self.connection.keep_rows = true;
        self.call(random);
        self.connection.keep_rows = false;
        self.connection.payloads.pop().unwrap_or_default()
    }
}

impl Client for SqlClient {
    fn call(&mut self, random: &mut Random) -> u64 {
        let Some(parameter) = self.parameter else {
            self.connection.execute(None);
            return 1;
        };
        self.bytes.clear();
        let operations = parameter(random, self.sessions, &mut self.bytes);
        self.connection.execute(Some(&self.bytes));
        operations
    }

    fn pid(&self) -> i32 {
        self.connection.pid
    }
}
