//! Contenders take short turns, round after round; what counts is their ratio within a round.
//!
//! The clock of a shared machine wanders by tens of per cent within seconds. Turns of a fraction of a second, in another
//! order each round, put two contenders under the same weather; the middle of many rounds leaves out the gusts.
//! Connections stay open and statements prepared between turns, and each turn starts with some unmeasured operations,
//! because a process that has slept finds its caches cold.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    numbers::Spread,
    random::Random,
    scale::{self, Scale},
};

/// A connection that does one thing, over and over.
pub trait Line: Send {
    /// Does it once; returns how many operations that was.
    fn once(&mut self, random: &mut Random) -> u64;

    /// The process that serves it.
    fn pid(&self) -> i32;
}

/// Somebody who takes part, with the connections that push at the same time.
pub struct Contender {
    pub name: String,
    lines: Vec<Box<dyn Line>>,
}

impl Contender {
    /// As many lines as said, each made for its number.
    pub fn new<L: Line + 'static>(
        name: &str,
        connections: u64,
        line: impl Fn(u64) -> L,
    ) -> Contender {
        Contender {
            name: name.into(),
            lines: (0..connections)
                .map(|number| Box::new(line(number)) as Box<dyn Line>)
                .collect(),
        }
    }

    /// One turn.
    fn turn(&mut self, seed: u64, warming: Duration, turn: Duration) -> Score {
        let (start, stop) = (Barrier::new(self.lines.len() + 1), AtomicBool::new(false));
        let mut pids: Vec<i32> = self.lines.iter().map(|line| line.pid()).collect();
        pids.sort_unstable();
        pids.dedup();
        let cpu = || pids.iter().map(|pid| cpu_us(*pid)).sum::<f64>();
        thread::scope(|scope| {
            let workers: Vec<_> = self
                .lines
                .iter_mut()
                .enumerate()
                .map(|(number, line)| {
                    let (start, stop) = (&start, &stop);
                    scope.spawn(move || {
                        let mut random = Random::new(seed * 64 + number as u64);
                        let began = Instant::now();
                        while began.elapsed() < warming {
                            line.once(&mut random);
                        }
                        start.wait();
                        start.wait();
                        let began = Instant::now();
                        let mut did = 0;
                        while !stop.load(Ordering::Relaxed) {
                            did += line.once(&mut random);
                        }
                        (did, began.elapsed().as_secs_f64())
                    })
                })
                .collect();
            // All servers are idle at the first barrier, so that their CPU time is that of the turn.
            start.wait();
            let before = cpu();
            start.wait();
            thread::sleep(turn);
            stop.store(true, Ordering::Relaxed);
            let (mut operations, mut per_second) = (0, 0.0);
            for worker in workers {
                let (did, seconds) = worker.join().expect("the contender");
                operations += did;
                per_second += did as f64 / seconds;
            }
            Score {
                per_second,
                cpu_us: (cpu() - before) / operations as f64,
            }
        })
    }
}

/// What one contender did in one turn.
#[derive(Clone, Copy)]
pub struct Score {
    pub per_second: f64,
    /// CPU time of the server's processes per operation, in microseconds.
    pub cpu_us: f64,
}

/// How one contender compares with another.
#[derive(Clone, Copy)]
pub enum Measure {
    /// Operations per second, by the clock.
    Clock,
    /// Operations per second of the server's CPU time, which neighbours on the machine disturb less.
    Cpu,
}

/// What all contenders did in all rounds.
pub struct Outcome {
    names: Vec<String>,
    scores: Vec<Vec<Score>>,
}

/// Lets the contenders take turns as this chapter's share of the time allows.
pub fn contest(scale: &Scale, contenders: &mut [Contender], rounds: u64) -> Outcome {
    let turn = scale.turn;
    let mut outcome = Outcome {
        names: contenders.iter().map(|one| one.name.clone()).collect(),
        scores: vec![Vec::new(); contenders.len()],
    };
    let mut random = Random::new(scale::SEED);
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    // The first round is for everybody's caches.
    for round in 0..=rounds {
        random.shuffle(&mut order);
        for &number in &order {
            let score = contenders[number].turn(round, turn / 10, turn);
            if round > 0 {
                outcome.scores[number].push(score);
            }
        }
    }
    outcome
}

impl Outcome {
    fn of(&self, name: &str) -> &[Score] {
        let found = self.names.iter().position(|one| one == name);
        &self.scores[found.unwrap_or_else(|| panic!("nobody is called {name}"))]
    }

    pub fn per_second(&self, name: &str) -> Spread {
        Spread::of(self.of(name).iter().map(|score| score.per_second))
    }

    pub fn cpu_us(&self, name: &str) -> Spread {
        Spread::of(self.of(name).iter().map(|score| score.cpu_us))
    }

    /// How many times as much one contender did as another, within a round.
    pub fn ratio(&self, measure: Measure, above: &str, below: &str) -> Spread {
        let pairs = self.of(above).iter().zip(self.of(below));
        Spread::of(pairs.map(|(above, below)| match measure {
            Measure::Clock => above.per_second / below.per_second,
            Measure::Cpu => below.cpu_us / above.cpu_us,
        }))
    }

    /// A figure of every turn of one contender.
    pub fn each(&self, name: &str, figure: impl Fn(&Score) -> f64) -> Vec<f64> {
        self.of(name).iter().map(figure).collect()
    }

    /// Every turn, for whoever wants to reckon otherwise.
    pub fn raw(&self) -> Value {
        let contender = |(name, scores): (&String, &Vec<Score>)| {
            json!({
                "name": name,
                "per_second": scores.iter().map(|score| score.per_second).collect::<Vec<_>>(),
                "cpu_us": scores.iter().map(|score| score.cpu_us).collect::<Vec<_>>(),
            })
        };
        self.names.iter().zip(&self.scores).map(contender).collect()
    }
}

/// CPU time that a process has used, in microseconds: of all its threads, finer than the kernel's ticks.
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
