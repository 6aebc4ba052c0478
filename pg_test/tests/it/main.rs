//! One program for all tests, as each program links anew; one module per subject.

mod badinput;
mod clients;
mod databases;
mod feed;
mod guard;
mod harness;
mod health;
mod heartbeats;
mod install;
mod order;
mod readme;
mod sessions;
mod settings;
mod status;
mod timeouts;
mod tokens;
mod transactions;
mod worker;
