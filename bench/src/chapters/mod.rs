//! The parts of the benchmark, in their order.

use crate::{chapter::Chapter, venue::Venue};

mod batch;
mod bystander;
mod growth;
mod heartbeat;
mod latency;
mod load;
mod look;
mod peers;
mod storm;
mod wal;
mod worker;

/// A chapter's name, and what it does.
pub type Entry = (&'static str, fn(&mut Venue) -> Chapter);

pub const ALL: &[Entry] = &[
    ("heartbeat", heartbeat::run),
    ("peers", peers::run),
    ("batch", batch::run),
    ("look", look::run),
    ("load", load::run),
    ("bystander", bystander::run),
    ("worker", worker::run),
    ("wal", wal::run),
    ("latency", latency::run),
    ("storm", storm::run),
    ("growth", growth::run),
];
