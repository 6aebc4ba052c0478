//! Interleaved measurement: variants take short turns, round after round, and are compared within a round.
//!
//! The speed of a shared machine varies by tens of per cent within seconds. Turns of a fraction of a second, in a
//! different order each round, expose two variants to the same conditions, and the median of many rounds discards the
//! outliers. Connections stay open and statements stay prepared between turns. Each turn starts with an unmeasured
//! warm-up, because the caches of a process that has slept are cold.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{random::Random, scale::Scale, summary::Summary};

/// Seeds the order of turns, which is the same in every run.
const ORDER_SEED: u64 = 20_000_101;

/// A connection that makes the same call over and over.
pub trait Client: Send {
    /// Makes one call; returns the number of operations in it.
    fn call(&mut self, random: &mut Random) -> u64;

    /// The server process that handles it.
    fn pid(&self) -> i32;
}

/// One of the ways compared, with the clients that run it concurrently.
pub struct Variant {
    pub name: String,
    clients: Vec<Box<dyn Client>>,
}

impl Variant {
    /// Creates a variant with `connections` clients; `client` creates each from its number.
    pub fn new<C: Client + 'static>(name: &str, connections: u64, client: impl Fn(u64) -> C) -> Variant {
        Variant {
            name: name.into(),
            clients: (0..connections)
                .map(|number| Box::new(client(number)) as Box<dyn Client>)
                .collect(),
        }
    }

    /// Runs one turn.
    fn run_turn(&mut self, seed: u64, warm_up: Duration, length: Duration) -> Turn {
        let (start, stop) = (Barrier::new(self.clients.len() + 1), AtomicBool::new(false));
        let mut pids: Vec<i32> = self.clients.iter().map(|client| client.pid()).collect();
        pids.sort_unstable();
        pids.dedup();
        let cpu = || pids.iter().map(|pid| cpu_us(*pid)).sum::<f64>();
        thread::scope(|scope| {
            let threads: Vec<_> = self
                .clients
                .iter_mut()
                .enumerate()
                .map(|(number, client)| {
                    let (start, stop) = (&start, &stop);
                    scope.spawn(move || {
                        let mut random = Random::new(seed * 64 + number as u64);
                        let began = Instant::now();
                        while began.elapsed() < warm_up {
                            client.call(&mut random);
                        }
                        start.wait();
                        start.wait();
                        let began = Instant::now();
                        let mut operations = 0;
                        while !stop.load(Ordering::Relaxed) {
                            operations += client.call(&mut random);
                        }
                        (operations, began.elapsed().as_secs_f64())
                    })
                })
                .collect();
            // Between the two barriers all server processes are idle, so that the CPU time is that of the turn.
            start.wait();
            let before = cpu();
            start.wait();
            thread::sleep(length);
            stop.store(true, Ordering::Relaxed);
            let (mut total, mut per_second) = (0, 0.0);
            for thread in threads {
                let (operations, seconds) = thread.join().expect("a client thread");
                total += operations;
                per_second += operations as f64 / seconds;
            }
            Turn {
                per_second,
                cpu_us: (cpu() - before) / total as f64,
            }
        })
    }
}

/// What one variant achieved in one turn.
#[derive(Clone, Copy)]
pub struct Turn {
    pub per_second: f64,
    /// CPU time of the server processes per operation, in microseconds.
    pub cpu_us: f64,
}

/// By what two variants are compared.
#[derive(Clone, Copy)]
pub enum Measure {
    /// Operations per second of wall-clock time.
    Clock,
    /// Operations per second of server CPU time, which other work on the machine disturbs less.
    Cpu,
}

/// The turns of all variants in all rounds.
pub struct Outcome {
    names: Vec<String>,
    turns: Vec<Vec<Turn>>,
}

/// Runs the variants in turn for `rounds` rounds, after one that is not counted.
pub fn interleave(scale: &Scale, variants: &mut [Variant], rounds: u64) -> Outcome {
    let length = scale.turn;
    let mut outcome = Outcome {
        names: variants.iter().map(|variant| variant.name.clone()).collect(),
        turns: vec![Vec::new(); variants.len()],
    };
    let mut random = Random::new(ORDER_SEED);
    let mut order: Vec<usize> = (0..variants.len()).collect();
    // The first round fills the caches.
    for round in 0..=rounds {
        random.shuffle(&mut order);
        for &number in &order {
            let turn = variants[number].run_turn(round, length / 10, length);
            if round > 0 {
                outcome.turns[number].push(turn);
            }
        }
    }
    outcome
}

impl Outcome {
    fn of(&self, name: &str) -> &[Turn] {
        let found = self.names.iter().position(|one| one == name);
        &self.turns[found.unwrap_or_else(|| panic!("no variant named \"{name}\""))]
    }

    pub fn per_second(&self, name: &str) -> Summary {
        Summary::of(self.of(name).iter().map(|turn| turn.per_second))
    }

    pub fn cpu_us(&self, name: &str) -> Summary {
        Summary::of(self.of(name).iter().map(|turn| turn.cpu_us))
    }

    /// Returns how many times as fast one variant is as another, compared within each round.
    pub fn ratio(&self, measure: Measure, numerator: &str, denominator: &str) -> Summary {
        let pairs = self.of(numerator).iter().zip(self.of(denominator));
        Summary::of(pairs.map(|(numerator, denominator)| match measure {
            Measure::Clock => numerator.per_second / denominator.per_second,
            Measure::Cpu => denominator.cpu_us / numerator.cpu_us,
        }))
    }

    /// Returns a value computed from each turn of a variant.
    pub fn each(&self, name: &str, value: impl Fn(&Turn) -> f64) -> Vec<f64> {
        self.of(name).iter().map(value).collect()
    }

    /// Returns every turn, as JSON.
    pub fn turns(&self) -> Value {
        let variant = |(name, turns): (&String, &Vec<Turn>)| {
            json!({
                "name": name,
                "per_second": turns.iter().map(|turn| turn.per_second).collect::<Vec<_>>(),
                "cpu_us": turns.iter().map(|turn| turn.cpu_us).collect::<Vec<_>>(),
            })
        };
        self.names.iter().zip(&self.turns).map(variant).collect()
    }
}

/// Returns the CPU time of all threads of a process, in microseconds. The kernel's schedstat is finer than its ticks.
pub fn cpu_us(pid: i32) -> f64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return f64::NAN;
    };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .sum::<f64>()
        / 1000.0
}
