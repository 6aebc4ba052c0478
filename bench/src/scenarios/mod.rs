//! The scenarios, in the order in which they run.

use crate::{env::Env, results::Results};

mod alternatives;
mod batch;
pub mod before;
mod concurrency;
mod declared;
mod gateway;
mod heartbeat;
mod hidden;
mod idle;
mod interference;
mod latency;
mod login_storm;
mod memory;
mod neighbors;
mod reads;
mod reconnect_storm;
mod scaling;
mod wal;
mod worker;

/// A scenario's name and its function.
pub type Scenario = (&'static str, fn(&mut Env) -> Results);

pub const ALL: &[Scenario] = &[
    ("heartbeat", heartbeat::run),
    ("alternatives", alternatives::run),
    ("batch", batch::run),
    ("reads", reads::run),
    ("concurrency", concurrency::run),
    ("interference", interference::run),
    ("worker", worker::run),
    ("gateway", gateway::run),
    ("reconnect_storm", reconnect_storm::run),
    ("idle", idle::run),
    ("declared", declared::run),
    ("hidden", hidden::run),
    ("memory", memory::run),
    ("neighbors", neighbors::run),
    ("wal", wal::run),
    ("latency", latency::run),
    ("login_storm", login_storm::run),
    ("scaling", scaling::run),
];
