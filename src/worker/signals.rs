//! What signals ask of the worker: to stop, and to read the configuration again.

use pgrx::pg_sys;

/// Reads the configuration again.
pub fn reload_configuration() {
    // SAFETY: outside a transaction, as the server's own processes do it. Pinned settings stay: they outrank the file.
    unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
}

/// Whether SIGTERM has come. (wait_latch reports it only once.)
pub fn shutdown_requested() -> bool {
    // SAFETY: a flag that a signal handler sets; read as such.
    unsafe { (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 }
}
