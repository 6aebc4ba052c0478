//! The trigger that captures writes to `user_sessions`: AFTER each row and each TRUNCATE, ENABLE ALWAYS.
//!
//! It raises no error for the contents of a row, as that would stop replication for good. It runs while the row's lock
//! is held, so that the stamps of a row's writes follow the order of their commits.

use pgrx::{pg_sys, prelude::*};

use super::{
    call::{Operation, Timing, TriggerCall, TriggerResult},
    pending::{self, PendingWrite},
};
use crate::{
    pg::{errors, installed},
    roster::{self, Effect, RowImage, Tenant, Write},
    store::own_write,
};

/// Captures a write to `user_sessions`, which is applied to the roster at commit. Errors: 53200 where there is no
/// memory to keep it, 42501 where the function is not the trigger of that table.
#[pg_extern]
pub fn _capture(fcinfo: pg_sys::FunctionCallInfo) -> TriggerResult {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame, and keeps the tuples until the function
    // returns.
    let call = unsafe { TriggerCall::of(fcinfo) };
    if call.timing != Timing::After {
        errors::not_permitted();
    }
    if own_write::is_running() {
        return TriggerResult::none();
    }
    // Where the library is not preloaded there is no roster. One that is made later is loaded from the table.
    let Some(tenant) = roster::try_tenant() else {
        return TriggerResult::none();
    };
    if call.table() != installed::get().sessions {
        errors::not_permitted();
    }
    match call.operation {
        Operation::Truncate => {
            if !pending::ensure_capacity() {
                errors::out_of_memory();
            }
            pending::push(tenant, PendingWrite::Truncate(roster::take_stamp(false)));
        }
        Operation::Insert(row) => {
            if let Some(image) = row.image() {
                let effect = Effect {
                    activated: true,
                    ..Effect::default()
                };
                record(tenant, image, effect);
            }
        }
        Operation::Update { old, new, .. } => {
            if let (Some(old), Some(new)) = (old.image(), new.image()) {
                record_update(tenant, &old, new);
            }
        }
        Operation::Delete(row) => {
            if let Some(image) = row.image() {
                record_deletion(tenant, image);
            }
        }
    }
    TriggerResult::none()
}

fn record_update(tenant: Tenant, old: &RowImage, new: RowImage) {
    if old.id != new.id {
        // Another id is another session: the old one is deleted.
        record_deletion(tenant, *old);
    }
    let effect = Effect {
        deleted: false,
        beat: new.last_activity > old.last_activity,
        activated: new.is_active && !old.is_active,
        deactivated: old.is_active && !new.is_active,
    };
    record(tenant, new, effect);
}

fn record_deletion(tenant: Tenant, image: RowImage) {
    let effect = Effect {
        deleted: true,
        ..Effect::default()
    };
    record(tenant, image, effect);
}

/// Records one write. Everything that can fail comes before the stamp is taken; only the push comes after.
fn record(tenant: Tenant, image: RowImage, effect: Effect) {
    if !pending::ensure_capacity() {
        errors::out_of_memory();
    }
    let mut write = Write {
        image,
        stamp: 0,
        effect,
    };
    let reservation = match write.is_end() {
        true => None,
        false => tenant.reserve(&image).ok(),
    };
    let has_no_slot = reservation.is_none() && !write.is_end();
    if has_no_slot {
        tenant.set_overflow();
    }
    write.stamp = roster::take_stamp(has_no_slot);
    pending::push(tenant, PendingWrite::Row(write, reservation));
}
