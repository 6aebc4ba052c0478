//! The worker's signals: SIGTERM to stop, SIGHUP to reload the configuration.

use pgrx::pg_sys;

/// Reloads the configuration files.
pub fn reload_configuration() {
    // SAFETY: outside a transaction, as in the server's own processes. Pinned settings stay: they outrank the files.
    unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
}

/// Whether SIGTERM was received. (`wait_latch` reports it only once.)
pub fn shutdown_requested() -> bool {
    // SAFETY: a volatile read of a flag that a signal handler sets.
    unsafe { (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 }
}
