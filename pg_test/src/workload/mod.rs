//! Clients under load that remember every acknowledged call and hold the server to it, whatever happens to the server.

mod feed_history;
mod steady_client;
mod tracked_session;

use std::{
    collections::{HashMap, VecDeque},
    error::Error as _,
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use postgres::{Client, Error, NoTls};
use uuid::Uuid;

use crate::{Cluster, Database, Rng, StopOnDrop, wait_for, wait_until};
pub use feed_history::FeedHistory;
use steady_client::SteadyClient;
use tracked_session::TrackedSession;

/// Sessions of one client.
const SESSIONS: usize = 12;
/// One session in this many is steady: its user never signs out before the end.
const STEADY_SHARE: usize = 3;

/// How many ended sessions a client remembers.
const REMEMBERED: usize = 1000;

/// What all clients share.
#[derive(Default)]
pub struct Workload {
    clients: u64,
    stop: AtomicBool,
    /// Whether logins and logouts are paused.
    paused: AtomicBool,
    /// Each paused client's users, and whether they are live.
    expected: Mutex<HashMap<u64, Vec<(Uuid, bool)>>>,
    logins: AtomicU64,
    beats: AtomicU64,
    logouts: AtomicU64,
    steady_clients: Mutex<HashMap<Uuid, SteadyClient>>,
    loss: Mutex<TimeDelta>,
    /// Latency histogram of beats in microseconds, with buckets of 2^(1/4).
    latencies: Mutex<Vec<u64>>,
}

impl Workload {
    /// A workload of this many clients.
    pub fn with_clients(clients: u64) -> Workload {
        Workload {
            clients,
            ..Workload::default()
        }
    }

    /// The numbers of its clients.
    pub fn clients(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.clients
    }

    /// Stops the clients when dropped. On a panic the server exits, too, for which they may be waiting in vain.
    pub fn stop_on_drop<'a>(&'a self, cluster: &'a Cluster) -> StopClients<'a> {
        StopClients {
            cluster,
            _stop: StopOnDrop(&self.stop),
        }
    }

    fn answers(&self) -> u64 {
        [&self.logins, &self.beats, &self.logouts]
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum()
    }

    /// Waits until the clients have received this many more answers.
    pub fn wait_for_answers(&self, more: u64) {
        let enough = self.answers() + more;
        wait_until("answers", || self.answers() >= enough);
    }

    /// Pauses logins and logouts, while live sessions keep beating; returns each user and whether they are live.
    fn pause(&self) -> Vec<(Uuid, bool)> {
        self.expected.lock().expect("the expected statuses").clear();
        self.paused.store(true, Ordering::Release);
        wait_for("every client to pause", || {
            let expected = self.expected.lock().expect("the expected statuses");
            (expected.len() as u64 == self.clients).then(|| expected.values().flatten().copied().collect())
        })
    }

    fn resume(&self) {
        self.paused.store(false, Ordering::Release);
    }

    /// Whether the server was right to report a user inactive at `changed_at` and last seen at `seen`: the user is not
    /// steady, or was silent for too long in between.
    fn excuses(&self, user: Uuid, seen: DateTime<Utc>, changed_at: DateTime<Utc>) -> bool {
        let steady_clients = self.steady_clients.lock().expect("the steady clients");
        steady_clients
            .get(&user)
            .is_none_or(|steady| steady.excuses(seen, changed_at, Utc::now()))
    }

    /// Records an acknowledged beat of a steady client.
    fn record_beat(&self, user: Uuid, sent: DateTime<Utc>) {
        let mut steady_clients = self.steady_clients.lock().expect("the steady clients");
        steady_clients
            .entry(user)
            .or_insert_with(|| SteadyClient::begin(sent))
            .record_beat(sent, Utc::now());
    }

    /// Records that a steady client is about to sign out.
    fn record_sign_out(&self, user: Uuid) {
        let mut steady_clients = self.steady_clients.lock().expect("the steady clients");
        if let Some(steady) = steady_clients.get_mut(&user) {
            steady.record_sign_out(Utc::now());
        }
    }

    /// Returns how long the steady clients have kept beating, for a report. Asserts that each of them has, or nothing
    /// would be shown.
    pub fn steady_report(&self) -> String {
        let steady_clients = self.steady_clients.lock().expect("the steady clients");
        let all = self.clients as usize * SESSIONS.div_ceil(STEADY_SHARE);
        let counts = |steady: &&SteadyClient| {
            let (observed, silent) = steady.observed();
            silent < observed
        };
        let kept = steady_clients.values().filter(counts).count();
        let (observed, silent) = steady_clients
            .values()
            .map(SteadyClient::observed)
            .fold((TimeDelta::zero(), TimeDelta::zero()), |sum, one| {
                (sum.0 + one.0, sum.1 + one.1)
            });
        assert_eq!(kept, all, "too few have kept beating");
        format!(
            "{kept} users kept beating for {} s, except for {} s of silence, and none was reported inactive",
            observed.num_seconds(),
            silent.num_seconds()
        )
    }

    /// Records that a crash has lost the beats of this much time.
    fn record_loss(&self, time: TimeDelta) {
        let mut worst = self.loss.lock().expect("the loss");
        *worst = time.max(*worst);
    }

    pub fn worst_loss(&self) -> TimeDelta {
        *self.loss.lock().expect("the loss")
    }

    fn record_latency(&self, time: Duration) {
        let bucket = (4.0 * (time.as_micros() as f64).max(1.0).log2()) as usize;
        let mut latencies = self.latencies.lock().expect("the latencies");
        if latencies.len() <= bucket {
            latencies.resize(bucket + 1, 0);
        }
        latencies[bucket] += 1;
    }

    /// The 99th percentile of a beat's latency, to within 20 %.
    pub fn p99_latency(&self) -> Duration {
        let latencies = self.latencies.lock().expect("the latencies");
        let mut left = latencies.iter().sum::<u64>() / 100;
        for (bucket, &count) in latencies.iter().enumerate().rev() {
            if count > left {
                return Duration::from_micros((2.0f64).powf((bucket as f64 + 1.0) / 4.0) as u64);
            }
            left -= count;
        }
        Duration::ZERO
    }

    /// Returns what was acknowledged, for a report.
    pub fn acknowledged_report(&self) -> String {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "{} logins, {} beats and {} logouts acknowledged, none lost",
            count(&self.logins),
            count(&self.beats),
            count(&self.logouts)
        )
    }
}

/// What [`Workload::stop_on_drop`] returns.
pub struct StopClients<'a> {
    cluster: &'a Cluster,
    _stop: StopOnDrop<'a>,
}

impl Drop for StopClients<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.cluster.abandon();
        }
    }
}

/// Runs one client until the workload stops, through every crash, and then signs all its users out.
pub fn run_client(workload: &Workload, database: &Database, number: u64) {
    let mut client = WorkloadClient {
        workload,
        number,
        sessions: (0..SESSIONS)
            .map(|n| TrackedSession::new(Uuid::new_v4(), n % STEADY_SHARE == 0))
            .collect(),
        ended: VecDeque::new(),
        rng: Rng::new(number),
    };
    while let Err(error) = client.run(&mut connect(database)) {
        assert!(is_disconnect(&error), "{error:?}");
    }
}

/// One client, and what it knows.
struct WorkloadClient<'w> {
    workload: &'w Workload,
    number: u64,
    sessions: Vec<TrackedSession>,
    ended: VecDeque<Uuid>,
    rng: Rng,
}

impl WorkloadClient<'_> {
    /// Works on one connection, until it is lost or the workload stops.
    fn run(&mut self, client: &mut Client) -> Result<(), Error> {
        let workload = self.workload;
        for session in &mut self.sessions {
            session.check_after_crash(client, workload)?;
        }
        self.check_ended(client)?;
        while !workload.stop.load(Ordering::Relaxed) {
            if workload.paused.load(Ordering::Acquire) {
                self.pause(client)?;
                continue;
            }
            if let Some(late) = self.sessions.iter_mut().find(|session| session.is_late()) {
                late.beat(client, workload)?;
                continue;
            }
            let at = self.rng.below(SESSIONS as u64) as usize;
            let chance = self.rng.next_u64() >> 8;
            let ended = self.sessions[at].step(client, workload, chance)?;
            self.ended.extend(ended);
            if self.ended.len() > REMEMBERED {
                self.ended.pop_front();
            }
        }
        for session in &mut self.sessions {
            let ended = session.sign_out(client, workload)?;
            self.ended.extend(ended);
        }
        self.check_ended(client)
    }

    /// Resolves what is unacknowledged, publishes the expected statuses, and then only beats until the workload resumes.
    fn pause(&mut self, client: &mut Client) -> Result<(), Error> {
        let mut expected = Vec::new();
        for session in &mut self.sessions {
            let ended = session.resolve(client, self.workload)?;
            self.ended.extend(ended);
            expected.push(session.expected());
        }
        let mut all = self.workload.expected.lock().expect("the expected statuses");
        all.insert(self.number, expected);
        drop(all);
        while self.workload.paused.load(Ordering::Acquire) && !self.workload.stop.load(Ordering::Relaxed) {
            for session in &mut self.sessions {
                session.beat(client, self.workload)?;
            }
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Asserts that no ended session is back.
    fn check_ended(&self, client: &mut Client) -> Result<(), Error> {
        let mut ended: Vec<Uuid> = self.ended.iter().copied().collect();
        let row = client.query_one("SELECT presence.heartbeat_many($1)", &[&ended])?;
        let mut missed: Vec<Uuid> = row.get(0);
        ended.sort();
        missed.sort();
        assert_eq!(missed, ended, "a logout is undone");
        Ok(())
    }
}

fn connect(database: &Database) -> Client {
    let mut config = database.cluster.config(&database.name, "postgres");
    config.application_name("workload");
    wait_for("a connection", || config.connect(NoTls).ok())
}

/// Whether an error only means that the server is gone.
fn is_disconnect(error: &Error) -> bool {
    let shutdown = ["57P01", "57P02", "57P03"];
    error.is_closed()
        || error.code().is_some_and(|code| shutdown.contains(&code.code()))
        || error.source().is_some_and(|source| source.is::<io::Error>())
}
