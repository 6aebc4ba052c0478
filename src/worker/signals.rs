//! The worker's signals: SIGTERM to stop, SIGINT to cancel a statement, SIGHUP to reload the configuration.
//!
//! SIGTERM cancels the transaction that is in progress, whoever's code it runs, so that the worker can write the last
//! activity of sessions and exit. A second SIGTERM ends the process as it ends any backend.

use std::sync::atomic::{
    AtomicBool, AtomicPtr,
    Ordering::{Relaxed, SeqCst},
};

use pgrx::pg_sys;

use crate::{launcher::slots::WorkerSlot, pg::compat};

/// Whether a transaction is in progress, which a signal cancels. Outside one there is nothing to cancel, and the error
/// would end the worker.
static IN_TRANSACTION: AtomicBool = AtomicBool::new(false);
/// Whether transactions may begin although SIGTERM was received.
static FINISHING: AtomicBool = AtomicBool::new(false);
/// The slot whose status SIGTERM sets.
static SLOT: AtomicPtr<WorkerSlot> = AtomicPtr::new(std::ptr::null_mut());

/// Installs the handlers of SIGTERM and SIGINT. To be called before signals are unblocked.
pub fn attach(slot: &'static WorkerSlot) {
    SLOT.store(std::ptr::from_ref(slot).cast_mut(), SeqCst);
    handle(pg_sys::SIGTERM, on_sigterm_while_connecting);
}

/// Handles signals as a worker that is connected does.
pub fn attach_connected() {
    handle(pg_sys::SIGTERM, on_sigterm);
    handle(pg_sys::SIGINT, on_sigint);
}

fn handle(signal: u32, handler: unsafe extern "C-unwind" fn(i32)) {
    #[cfg(not(feature = "pg18"))]
    // SAFETY: the handlers only write to flags and set a latch.
    unsafe {
        pg_sys::pqsignal(signal as i32, Some(handler));
    }
    #[cfg(feature = "pg18")]
    // SAFETY: as above.
    unsafe {
        pg_sys::pqsignal_be(signal as i32, Some(handler));
    }
}

/// Connecting may wait for a DROP DATABASE; the process ends at the next check for interrupts.
unsafe extern "C-unwind" fn on_sigterm_while_connecting(_signal: i32) {
    note_termination();
    // SAFETY: volatile writes of flags, and the latch of this process.
    unsafe {
        die();
        wake();
    }
}

unsafe extern "C-unwind" fn on_sigterm(_signal: i32) {
    // SAFETY: volatile accesses of flags, and the latch of this process.
    unsafe {
        if shutdown_requested() {
            die();
        } else {
            cancel();
        }
        note_termination();
        wake();
    }
}

unsafe extern "C-unwind" fn on_sigint(_signal: i32) {
    // SAFETY: as above.
    unsafe {
        cancel();
        wake();
    }
}

/// Notes that SIGTERM was received, here and for the launcher, to which it is no failure.
fn note_termination() {
    // SAFETY: a volatile write of a flag; the slot is in shared memory for the life of the process.
    unsafe {
        (&raw mut pg_sys::ShutdownRequestPending).write_volatile(1);
        if let Some(slot) = SLOT.load(SeqCst).as_ref() {
            slot.note_termination();
        }
    }
}

/// # Safety
/// In a signal handler.
unsafe fn die() {
    // SAFETY: volatile writes of flags.
    unsafe {
        (&raw mut pg_sys::ProcDiePending).write_volatile(1);
        (&raw mut pg_sys::InterruptPending).write_volatile(1);
    }
}

/// # Safety
/// In a signal handler.
unsafe fn cancel() {
    if IN_TRANSACTION.load(SeqCst) {
        // SAFETY: volatile writes of flags.
        unsafe {
            (&raw mut pg_sys::QueryCancelPending).write_volatile(1);
            (&raw mut pg_sys::InterruptPending).write_volatile(1);
        }
    }
}

/// # Safety
/// In a signal handler.
unsafe fn wake() {
    // SAFETY: the latch of this process, set early in its life.
    unsafe { compat::set_latch(compat::my_latch()) };
}

/// Begins the time in which signals cancel. Returns false if no transaction may begin any more.
pub fn enter_transaction() -> bool {
    IN_TRANSACTION.store(true, SeqCst);
    let may_continue = may_continue();
    if !may_continue {
        leave_transaction();
    }
    may_continue
}

/// Whether transactions may begin: SIGTERM was not received, or this is the last flush.
pub fn may_continue() -> bool {
    FINISHING.load(Relaxed) || !shutdown_requested()
}

/// Ends the time in which signals cancel, and forgets a request that came too late.
pub fn leave_transaction() {
    IN_TRANSACTION.store(false, SeqCst);
    // SAFETY: a volatile write of a flag; no handler sets it any more.
    unsafe { (&raw mut pg_sys::QueryCancelPending).write_volatile(0) };
}

/// Lets transactions begin although SIGTERM was received, for the last flush.
pub fn finish() {
    FINISHING.store(true, Relaxed);
}

/// Reloads the configuration files.
pub fn reload_configuration() {
    // SAFETY: outside a transaction, as in the server's own processes. Pinned settings stay: they outrank the files.
    unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
}

/// Whether SIGTERM was received.
pub fn shutdown_requested() -> bool {
    // SAFETY: a volatile read of a flag that a signal handler sets.
    unsafe { (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 }
}
