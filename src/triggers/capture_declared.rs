//! The trigger that captures writes to `declared_statuses`: AFTER each row and each TRUNCATE, ENABLE ALWAYS.
//!
//! Readers read the table itself. What they have to know is that there may be something in it, and the worker of whom.

use pgrx::{pg_sys, prelude::*};
use uuid::Uuid;

use super::{
    call::{Operation, Timing, TriggerCall, TriggerResult},
    declaration::user_of,
    pending::{self, PendingWrite},
};
use crate::{
    pg::{errors, installed},
    roster::{self, Tenant},
    store::own_write,
};

/// Captures a write to `declared_statuses`: at commit, the worker looks at the user, or after a TRUNCATE at all. Errors:
/// 53200 where there is no memory to keep it, 55000 where the function is not the trigger of that table.
#[pg_extern]
pub fn _capture_declared(fcinfo: pg_sys::FunctionCallInfo) -> TriggerResult {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame, and keeps the tuples until the function
    // returns.
    let call = unsafe { TriggerCall::of(fcinfo) };
    if call.timing != Timing::After {
        errors::misplaced_trigger();
    }
    // Where the library is not preloaded there is no roster. One that is made later takes it that there are rows.
    let Some(tenant) = roster::try_tenant() else {
        return TriggerResult::none();
    };
    if call.table() != installed::get().declared {
        errors::misplaced_trigger();
    }
    match call.operation {
        Operation::Truncate => record_all(tenant),
        Operation::Insert(row) => {
            tenant.set_may_have_declared();
            record(tenant, user_of(&row));
        }
        Operation::Update { old, new, .. } => {
            tenant.set_may_have_declared();
            let (old, new) = (user_of(&old), user_of(&new));
            if old != new {
                record(tenant, old);
            }
            record(tenant, new);
        }
        // What the extension itself deletes has expired, or is a forgotten user's.
        Operation::Delete(row) if !own_write::is_running() => record(tenant, user_of(&row)),
        Operation::Delete(_) => {}
        Operation::Statement => errors::misplaced_trigger(),
    }
    TriggerResult::none()
}

fn record(tenant: Tenant, user_id: Option<Uuid>) {
    let Some(user_id) = user_id else {
        return;
    };
    if pending::has_comparison() || pending::has_declared(&user_id) {
        return;
    }
    if !pending::keeps_declared() {
        return record_all(tenant);
    }
    push(tenant, PendingWrite::Declared(user_id));
}

/// Has all users compared.
fn record_all(tenant: Tenant) {
    if !pending::has_comparison() {
        push(tenant, PendingWrite::Compare);
    }
}

fn push(tenant: Tenant, write: PendingWrite) {
    if !pending::ensure_capacity() {
        errors::out_of_memory();
    }
    pending::push(tenant, 0, write);
}
