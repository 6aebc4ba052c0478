//! The fast path for a statement that is one call of ours and nothing else.
//!
//! Clients send `SELECT heartbeat($1)` all the time. To call a function, each statement reads the function's row,
//! rights and address from the catalogs, which takes about as long as the heartbeat itself. So when such a statement
//! starts, its plan is replaced by a custom scan that makes the call. The plan cache and the result are unaffected. The
//! fast path is taken only where the outcome is certain to be the same: [`identity::may_call`] knows the function and the
//! caller's right, function calls are not observed, and the statement is not run by EXPLAIN. Otherwise PostgreSQL calls
//! the function, which also records the right for the next time. `presence.fast_heartbeat` turns it off.
//!
//! What a heartbeat reads is prefetched while the executor starts.
//!
//! The same hook serves [`trust`], for all other statements: each hook costs every statement a call.
//!
//! `executor_start` runs for every statement of the server. An error of PostgreSQL jumps over its frame, so nothing in
//! it may need to be dropped, and it must not panic.

mod call;
mod scan;

use std::{cell::Cell, ffi::c_int};

use pgrx::pg_sys;
use uuid::Uuid;

use self::{
    call::{Call, only_call},
    scan::{CallPlan, Run},
};
use crate::{
    identity::{self, Callable},
    pg::{compat, process_local::ProcessLocal},
    session, settings,
    store::trust,
};

/// The hook that was installed before ours.
static PREVIOUS_HOOK: ProcessLocal<Cell<pg_sys::ExecutorStart_hook_type>> = ProcessLocal::new(Cell::new(None));

/// Installs the hook. Call once, from `_PG_init`.
pub fn init() {
    // SAFETY: the server is starting, with one thread, so nothing runs the hook meanwhile.
    unsafe {
        PREVIOUS_HOOK.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(executor_start);
    }
}

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: PostgreSQL passes a query that is about to start.
    let (call, run) = match unsafe { only_call(&*query, flags) }.and_then(|call| Some((what_to_run(&call)?, call))) {
        Some((run, call)) => (call, run),
        // SAFETY: the arguments are those of the hook.
        None => unsafe {
            next_executor_start(query, flags);
            return trust::executor_started(query);
        },
    };
    if let Run::Heartbeat(Some(session)) = &run {
        session::prefetch_heartbeat(session);
    }
    // SAFETY: the new plan is complete before the executor reads it, and is allocated in the memory context of the
    // query, which outlives the execution. plannedstmt is restored, so that other hooks see the original plan.
    unsafe {
        let statement = (*query).plannedstmt;
        let plan = compat::allocate(size_of::<CallPlan>()).cast::<CallPlan>();
        CallPlan::write(plan, &*statement, &call, run);
        (*query).plannedstmt = &mut (*plan).statement;
        next_executor_start(query, flags);
        (*query).plannedstmt = statement;
    }
    if let Run::Heartbeat(Some(session)) = &run {
        session::prefetch_slot(session);
    }
}

/// Returns what to run for a call; `None` where PostgreSQL has to make it.
#[inline(always)]
fn what_to_run(call: &Call) -> Option<Run> {
    let callable = identity::may_call(call.expression.funcid)?;
    if !settings::fast_heartbeat() || compat::function_calls_are_observed() {
        return None;
    }
    match callable {
        Callable::Heartbeat if call.is_of_uuid => {
            // SAFETY: a uuid is 16 bytes, without alignment.
            let session = || Uuid::from_bytes(unsafe { *call.argument.value.cast_mut_ptr::<[u8; 16]>() });
            Some(Run::Heartbeat((!call.argument.isnull).then(session)))
        }
        callable => callable.address().map(|address| Run::Function(Some(address))),
    }
}

/// Calls the previous hook, or else the standard function.
///
/// # Safety
/// As for the hook itself.
#[inline(always)]
unsafe fn next_executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: as the caller promises.
    unsafe {
        match PREVIOUS_HOOK.get() {
            Some(hook) => hook(query, flags),
            None => compat::standard_executor_start(query, flags),
        }
    }
}
