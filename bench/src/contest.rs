//! Contenders take turns, round after round, on the same server; what counts is their ratio within a round.

use std::{
    path::PathBuf,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::wire::Wire;

/// Sessions are numbered, and their ids tell the number.
pub fn session_id(number: u64) -> [u8; 16] {
    let mut id = *b"\0\0\0\0\0\0\x40\0\x80\0\0\0\0\0\0\0";
    id[8..].copy_from_slice(&(number | 1 << 63).to_be_bytes());
    id
}

/// What one contender does, over and over.
pub struct Contender {
    pub name: &'static str,
    pub role: &'static str,
    /// Run once per connection.
    pub before: &'static str,
    pub statement: &'static str,
    /// Whether the statement takes the id of a session.
    pub takes_id: bool,
}

/// What one contender did in one round.
#[derive(Clone, Copy)]
pub struct Score {
    pub per_second: f64,
    /// CPU time of the server's processes per operation, in microseconds.
    pub cpu_us: f64,
}

/// Where to connect to, and how hard to push.
pub struct Arena {
    pub socket: PathBuf,
    pub database: String,
    pub connections: u64,
    pub sessions: u64,
    pub turn: Duration,
}

impl Arena {
    /// One turn of one contender.
    pub fn turn(&self, contender: &Contender, round: u64) -> Score {
        let (start, stop) = (
            Barrier::new(self.connections as usize + 1),
            AtomicBool::new(false),
        );
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.connections)
                .map(|number| {
                    let (start, stop) = (&start, &stop);
                    scope.spawn(move || self.push(contender, round * 64 + number, start, stop))
                })
                .collect();
            start.wait();
            let began = Instant::now();
            thread::sleep(self.turn);
            stop.store(true, Ordering::Relaxed);
            let mut score = Score {
                per_second: 0.0,
                cpu_us: 0.0,
            };
            let (mut operations, mut cpu) = (0, 0.0);
            for worker in workers {
                let (did, took) = worker.join().expect("the contender");
                operations += did;
                cpu += took;
            }
            score.per_second = operations as f64 / began.elapsed().as_secs_f64();
            score.cpu_us = cpu / operations as f64;
            score
        })
    }

    fn push(
        &self,
        contender: &Contender,
        seed: u64,
        start: &Barrier,
        stop: &AtomicBool,
    ) -> (u64, f64) {
        let mut wire = Wire::connect(&self.socket, &self.database, contender.role);
        if !contender.before.is_empty() {
            wire.run(contender.before);
        }
        wire.prepare("s", contender.statement);
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut once = |wire: &mut Wire| {
            // xorshift: any session, each time another.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let id = session_id(random % self.sessions);
            wire.execute("s", contender.takes_id.then_some(&id[..]));
        };
        for _ in 0..100 {
            once(&mut wire);
        }
        start.wait();
        let before = cpu_us(wire.pid);
        let mut did = 0;
        while !stop.load(Ordering::Relaxed) {
            once(&mut wire);
            did += 1;
        }
        (did, cpu_us(wire.pid) - before)
    }
}

/// CPU time that a process has used, in microseconds; finer than the kernel's ticks where it keeps such a count.
fn cpu_us(pid: i32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let nanoseconds = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse::<f64>().ok());
    nanoseconds.unwrap_or(f64::NAN) / 1000.0
}

/// The middle of some numbers, the lowest and the highest.
pub fn spread(mut numbers: Vec<f64>) -> (f64, f64, f64) {
    numbers.sort_by(f64::total_cmp);
    (
        numbers[numbers.len() / 2],
        numbers[0],
        numbers[numbers.len() - 1],
    )
}
