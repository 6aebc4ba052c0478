//! The worker: one process per database that has the extension.
//!
//! [`main_loop`] does what [`schedule`] has due: it sweeps deadlines and calls the rest. [`loader`] loads the table
//! into the roster, [`compare`] finds of whom something else is shown, [`declared`] what of them is declared and has
//! expired, [`changes`] writes changes of status, [`notifier`] sends
//! them, [`flusher`] writes activity back to the table, [`cleaner`] deletes what is old. What cannot be written is
//! [`set_aside`], and [`trouble`] reports it. [`activity`] shows what the worker does, and [`table_watch`] says when to look
//! whether the tables are still the same. Tables are used only in short transactions of [`transaction`], which wait
//! for nobody.

mod activity;
mod changes;
mod cleaner;
mod compare;
mod declared;
mod flusher;
mod hidden;
mod loader;
mod main_loop;
mod notifier;
mod process;
mod schedule;
mod set_aside;
mod signals;
mod table_watch;
mod transaction;
mod trouble;
