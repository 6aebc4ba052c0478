//! One program for all tests, as each program links anew; one module per subject.

mod feed;
mod harness;
mod heartbeats;
mod install;
mod order;
mod readme;
mod sessions;
mod settings;
mod timeouts;
mod transactions;
