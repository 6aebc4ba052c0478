//! The trigger that sees what others write to `user_presence`: AFTER each statement, ENABLE ALWAYS.
//!
//! The worker compares what it has written with the roster, and so knows what the table says. That ends where somebody
//! truncates the table, as before a column is added again, or changes or deletes rows of it.

use pgrx::{pg_sys, prelude::*};

use super::{
    call::{Operation, Timing, TriggerCall, TriggerResult},
    pending::{self, PendingWrite},
};
use crate::{
    pg::{errors, installed},
    roster,
    store::own_write,
};

/// Has the worker compare all users with `user_presence` after the commit, unless the statement is the extension's own.
/// Errors: 53200 where there is no memory to keep that, 55000 where the function is not the trigger of that table.
#[pg_extern]
pub fn _compare(fcinfo: pg_sys::FunctionCallInfo) -> TriggerResult {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame.
    let call = unsafe { TriggerCall::of(fcinfo) };
    if call.timing != Timing::After || !matches!(call.operation, Operation::Statement | Operation::Truncate) {
        errors::misplaced_trigger();
    }
    // Where the library is not preloaded there is no worker. One that starts later compares anyway.
    let Some(tenant) = roster::try_tenant() else {
        return TriggerResult::none();
    };
    if call.table() != installed::get().presence {
        errors::misplaced_trigger();
    }
    if own_write::is_running() || tenant.worker_pid() == std::process::id() || pending::has_comparison() {
        return TriggerResult::none();
    }
    if !pending::ensure_capacity() {
        errors::out_of_memory();
    }
    pending::push(tenant, 0, PendingWrite::Compare);
    TriggerResult::none()
}
