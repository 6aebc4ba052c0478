//! The trigger that captures writes to `user_sessions`: AFTER each row and each TRUNCATE, ENABLE ALWAYS.
//!
//! It raises no error for the contents of a row, as that would stop replication for good. It runs while the row's lock
//! is held, so that the stamps of a row's writes follow the order of their commits. Within a transaction it may see a later
//! write of a row first: another AFTER trigger, whose name sorts before, has written the row again. The numbers of the
//! commands tell.

use pgrx::{pg_sys, prelude::*};
use uuid::Uuid;

use super::{
    call::{Operation, Timing, TriggerCall, TriggerResult},
    pending::{self, PendingWrite},
    row::TriggerRow,
};
use crate::{
    pg::{compat, errors, installed},
    roster::{self, Effect, Key, RowImage, Tenant, Write},
    store::own_write,
};

/// Captures a write to `user_sessions`, which is applied to the roster at commit. Errors: 53200 where there is no
/// memory to keep it, 55000 where the function is not the trigger of that table.
#[pg_extern]
pub fn _capture(fcinfo: pg_sys::FunctionCallInfo) -> TriggerResult {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame, and keeps the tuples until the function
    // returns.
    let call = unsafe { TriggerCall::of(fcinfo) };
    if call.timing != Timing::After {
        errors::misplaced_trigger();
    }
    // Where the library is not preloaded there is no roster. One that is made later is loaded from the table.
    let Some(tenant) = roster::try_tenant() else {
        return TriggerResult::none();
    };
    if call.table() != installed::get().sessions {
        errors::misplaced_trigger();
    }
    match call.operation {
        Operation::Truncate => {
            if !pending::ensure_capacity() {
                errors::out_of_memory();
            }
            // SAFETY: reads a variable of this process; the TRUNCATE has written already.
            let command = unsafe { pg_sys::GetCurrentCommandId(false) };
            pending::push(tenant, command, PendingWrite::Truncate(roster::take_stamp(false)));
        }
        Operation::Insert(row) => {
            if let Some(image) = row.image() {
                let effect = Effect {
                    activated: image.is_active,
                    ..Effect::default()
                };
                record(tenant, row.written_by(), true, image, effect);
            }
        }
        Operation::Update { old, new, .. } => {
            if let (Some(old), Some(image)) = (old.image(), new.image()) {
                record_update(tenant, &new, &old, image);
            }
        }
        Operation::Delete(row) => {
            if let Some(image) = row.image() {
                record_deletion(tenant, row.deleted_by(), image);
            }
        }
        Operation::Statement => errors::misplaced_trigger(),
    }
    TriggerResult::none()
}

/// Makes the roster forget the last activity of a user at commit. To be called once the transaction has erased the user
/// from the tables. Errors: 53200 where there is no memory to keep that.
pub fn forget_at_commit(user_id: Uuid) {
    if !pending::ensure_capacity() {
        errors::out_of_memory();
    }
    let tenant = roster::tenant();
    tenant.count_forgotten();
    pending::push(tenant, 0, PendingWrite::Forget(user_id));
}

fn record_update(tenant: Tenant, row: &TriggerRow, old: &RowImage, new: RowImage) {
    // The roster knows what a write of our own meant to do; it counts only if another trigger has made more of it.
    let intended = own_write::intended(old);
    if intended == Some(new) {
        return;
    }
    let old = &intended.unwrap_or(*old);
    let command = row.written_by();
    if old.id != new.id {
        // Another id is another session: the old one is deleted.
        record_deletion(tenant, command, *old);
    }
    // Before the clock was set back.
    let was_in_future = old.last_activity > compat::now();
    let effect = Effect {
        deleted: false,
        beat: new.last_activity > old.last_activity || was_in_future && new.last_activity < old.last_activity,
        activated: new.is_active && !old.is_active,
        deactivated: old.is_active && !new.is_active,
    };
    record(tenant, command, old.ended, new, effect);
}

fn record_deletion(tenant: Tenant, command: pg_sys::CommandId, image: RowImage) {
    let effect = Effect {
        deleted: true,
        ..Effect::default()
    };
    record(tenant, command, image.ended, image, effect);
}

/// Records one write, unless a later one of the same row was captured first. Everything that can fail comes before the
/// stamp is taken, or after the push. `was_over`: there was no such session, or it had ended.
fn record(tenant: Tenant, command: pg_sys::CommandId, was_over: bool, image: RowImage, effect: Effect) {
    if pending::merge_into_later(&image.id, command, effect) {
        return;
    }
    let mut write = Write {
        image,
        stamp: 0,
        effect,
    };
    // Nobody can bring what had ended before into the roster meanwhile. A cleanup or a restore may write millions of them.
    if was_over && write.is_end() && !tenant.knows(&image.id) && pending::last_write(&Key::Id(image.id)).is_none() {
        return;
    }
    if !pending::ensure_capacity() {
        errors::out_of_memory();
    }
    let reservation = match write.is_end() {
        true => None,
        false => tenant.reserve(&image).ok(),
    };
    let has_no_slot = reservation.is_none() && !write.is_end();
    if has_no_slot {
        tenant.set_overflow();
    }
    write.stamp = roster::take_stamp(has_no_slot);
    if !has_no_slot || pending::keeps_without_slot() {
        pending::push(tenant, command, PendingWrite::Row(write, reservation));
        if let Some(reservation) = &reservation {
            pending::resolve(tenant, reservation, &image.user_id);
        }
    } else if !pending::has_overflowed() {
        pending::push(tenant, command, PendingWrite::Overflow);
    }
}
