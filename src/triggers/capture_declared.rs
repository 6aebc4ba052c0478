//! The trigger that captures writes to `declared_statuses`: AFTER each row and each TRUNCATE, ENABLE ALWAYS.
//!
//! Readers read the table itself. What they have to know is that there may be something in it, and the worker of whom. Who is
//! hidden is in the roster, too.

use pgrx::{pg_sys, prelude::*};
use uuid::Uuid;

use super::{
    call::{Operation, Timing, TriggerCall, TriggerResult},
    declaration::{DeclaredFields, hides, user_of},
    pending::{self, PendingWrite, VisibilityWrite},
    row::TriggerRow,
};
use crate::{
    pg::{compat, errors, installed},
    roster::{self, Tenant, Visibility},
    rules::hiding::Hiding,
    settings,
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
        Operation::Truncate => {
            if tenant.may_have_hidden() {
                lose_visibility(tenant);
            }
            record_all(tenant);
        }
        Operation::Insert(row) => {
            announce(tenant, &row);
            record_visibility(tenant, None, Some(&row));
            record(tenant, user_of(&row));
        }
        Operation::Update { old, new, .. } => {
            announce(tenant, &new);
            record_visibility(tenant, Some(&old), Some(&new));
            let (old, new) = (user_of(&old), user_of(&new));
            if old != new {
                record(tenant, old);
            }
            record(tenant, new);
        }
        Operation::Delete(row) => {
            record_visibility(tenant, Some(&row), None);
            // What the extension itself deletes has expired, or is a forgotten user's.
            if !own_write::is_running() {
                record(tenant, user_of(&row));
            }
        }
        Operation::Statement => errors::misplaced_trigger(),
    }
    TriggerResult::none()
}

/// Notes that readers have to look for what a row says.
fn announce(tenant: Tenant, row: &TriggerRow) {
    match hides(row) {
        true => tenant.set_may_have_hidden(),
        false => tenant.set_may_have_declared(),
    }
}

/// Captures what a write makes of users who are hidden, or not any more.
fn record_visibility(tenant: Tenant, old: Option<&TriggerRow>, new: Option<&TriggerRow>) {
    let of = |row: Option<&TriggerRow>| {
        let fields = row.filter(|row| hides(row)).map(DeclaredFields::of)?;
        Some((fields.user_id?, fields.hiding()?))
    };
    let command = new.or(old).map_or(0, |row| match new {
        Some(_) => row.written_by(),
        None => row.deleted_by(),
    });
    let (old, new) = (of(old), of(new));
    let now = compat::now();
    // The worker may still have to tell an expiry.
    let was_hidden = |before: &Hiding| before.hidden_until().is_some();
    if let Some((user_id, before)) = &old
        && new.as_ref().is_none_or(|(other, _)| other != user_id)
        && was_hidden(before)
    {
        push_visibility(tenant, command, user_id, Some(before), Visibility::ShownSince(now));
    }
    if let Some((user_id, hiding)) = &new {
        let before = old.filter(|(other, _)| other == user_id).map(|(_, before)| before);
        let visibility = match hiding.hidden_until() {
            Some(until) if until > now => Visibility::HiddenUntil(until),
            _ => Visibility::ShownSince(hiding.visible(now).since),
        };
        if before.as_ref().is_some_and(was_hidden) || hiding.hides(now) {
            push_visibility(tenant, command, user_id, before.as_ref(), visibility);
        }
    }
}

/// `before`: the row of the user before the write.
fn push_visibility(
    tenant: Tenant,
    command: pg_sys::CommandId,
    user_id: &Uuid,
    before: Option<&Hiding>,
    visibility: Visibility,
) {
    if !pending::keeps_visibility() {
        return lose_visibility(tenant);
    }
    if !pending::ensure_capacity() {
        errors::out_of_memory();
    }
    let again = pending::has_visibility_of(user_id);
    let reservation = tenant
        .pin_visibility(user_id, again, before, settings::active_timeout())
        .ok();
    let write = VisibilityWrite {
        user_id: *user_id,
        visibility,
        before: before.filter(|before| before.hides(compat::now())).copied(),
        reservation,
        is_superseded: false,
    };
    pending::push(tenant, command, PendingWrite::Visibility(write));
}

/// Has the worker read again who is hidden.
fn lose_visibility(tenant: Tenant) {
    if !pending::loses_visibility() {
        push(tenant, PendingWrite::VisibilityLost);
    }
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
