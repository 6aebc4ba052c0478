//! Many calls at once: as many as there are users, from several connections, each user once.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use serde::Serialize;

use crate::{ids, interleave::cpu_us, server::Server};

/// Connections that share the calls.
pub struct Burst<'a> {
    pub name: &'a str,
    pub connections: u64,
    /// Users per call.
    pub batch: u64,
    pub sql: &'a str,
    pub parameters: Parameters,
}

/// Returns the parameters of a call for the users with these numbers, in binary format.
pub type Parameters = fn(numbers: &[u64]) -> Vec<Vec<u8>>;

/// What a burst achieved.
#[derive(Clone, Copy, Serialize)]
pub struct Rate {
    /// Users per second.
    pub per_second: f64,
    /// CPU time of the connections' processes per user, in microseconds.
    pub cpu_us: f64,
}

impl Burst<'_> {
    /// Makes the calls for the users with these numbers.
    pub fn run(&self, server: &Server, users: Range<u64>) -> Rate {
        let next = AtomicU64::new(users.start);
        let began = Instant::now();
        let cpu = thread::scope(|scope| {
            let one = || {
                let mut connection = server.connect("bench_service");
                connection.prepare(self.sql);
                let before = cpu_us(connection.pid);
                loop {
                    let from = next.fetch_add(self.batch, Ordering::Relaxed);
                    if from >= users.end {
                        break;
                    }
                    let numbers: Vec<u64> = (from..users.end.min(from + self.batch)).collect();
                    connection.execute_with(&(self.parameters)(&numbers));
                }
                cpu_us(connection.pid) - before
            };
            let threads: Vec<_> = (0..self.connections).map(|_| scope.spawn(one)).collect();
            let cpu = threads
                .into_iter()
                .map(|thread| thread.join().expect("a client thread"));
            cpu.sum::<f64>()
        });
        let users = (users.end - users.start) as f64;
        Rate {
            per_second: users / began.elapsed().as_secs_f64(),
            cpu_us: cpu / users,
        }
    }
}

/// Parameter: one id, of one user per call.
pub fn one_id(numbers: &[u64]) -> Vec<Vec<u8>> {
    vec![ids::id(numbers[0]).into()]
}

/// Parameter: an array of ids.
pub fn ids(numbers: &[u64]) -> Vec<Vec<u8>> {
    let mut array = Vec::new();
    ids::array(numbers, &mut array);
    vec![array]
}

/// Parameters: an array of ids, and one of the tokens.
pub fn ids_and_tokens(numbers: &[u64]) -> Vec<Vec<u8>> {
    let mut tokens = Vec::new();
    ids::token_array(numbers, &mut tokens);
    let mut parameters = ids(numbers);
    parameters.push(tokens);
    parameters
}
