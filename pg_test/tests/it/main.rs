//! One program for all tests, as each program links anew; one module per subject.

mod badinput;
mod clients;
mod crash;
mod databases;
mod encodings;
mod feed;
mod guard;
mod harness;
mod health;
mod heartbeats;
mod identity;
mod install;
mod order;
mod overflow;
mod readme;
mod replication;
mod rights;
mod rows;
mod secrets;
mod sessions;
mod settings;
mod status;
mod timeouts;
mod tokens;
mod transactions;
mod worker;
