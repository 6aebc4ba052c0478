//! The worker: one process per database that has the extension.
//!
//! [`main_loop`] sweeps deadlines and calls the rest: [`loader`] fills the roster from the table, [`changes`] writes changes
//! of status, [`notifier`] sends them, [`flusher`] writes activity back to the table, [`cleaner`] deletes what is old.
//! Everything on a table happens in a short transaction of [`transaction`], which never waits for anybody.

mod changes;
mod cleaner;
mod flusher;
mod loader;
mod main_loop;
mod notifier;
mod process;
mod signals;
mod transaction;
