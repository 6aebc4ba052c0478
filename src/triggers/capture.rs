//! The trigger that captures what was written to `user_sessions`: AFTER each row and each TRUNCATE, ENABLE ALWAYS.
//!
//! It never raises for what a row contains: an error here would stop replication for good. It runs while the row's lock is
//! held, so that its stamps follow the order of the commits.

use pgrx::{pg_sys, prelude::*};

use super::{
    call::{Operation, Timing, TriggerCall, TriggerResult},
    pending::{self, Op},
};
use crate::{
    pg::{errors, installed},
    roster::{self, Effect, RowImage, Tenant, Write},
    store::own_write,
};

/// Captures what was written to user_sessions, for the roster, which gets it at commit.
#[pg_extern]
pub fn _capture(fcinfo: pg_sys::FunctionCallInfo) -> TriggerResult {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame, and keeps the tuples until it returns.
    let call = unsafe { TriggerCall::of(fcinfo) };
    if call.timing != Timing::After {
        errors::not_permitted();
    }
    if own_write::is_running() {
        return TriggerResult::none();
    }
    // Without a roster the table is all there is; it will be loaded when there is one.
    let Some(tenant) = roster::try_tenant() else {
        return TriggerResult::none();
    };
    if call.table() != installed::get().sessions {
        errors::not_permitted();
    }
    match call.operation {
        Operation::Truncate => {
            if !pending::make_room() {
                errors::out_of_memory();
            }
            pending::push(tenant, Op::Truncate(roster::take_stamp()));
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
        // Another id is another session: the old one is gone.
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

/// Records one write. Everything that can fail comes before the stamp, which nothing may follow but the entry itself.
fn record(tenant: Tenant, image: RowImage, effect: Effect) {
    if !pending::make_room() {
        errors::out_of_memory();
    }
    let reserved = match tenant.reserve(&image) {
        Ok(reservation) => Some(reservation),
        Err(roster::Full) => {
            if !effect.deleted && !image.ended {
                tenant.set_overflow();
            }
            None
        }
    };
    let stamp = roster::take_stamp();
    pending::push(tenant, Op::Row(Write { image, stamp, effect }, reserved));
}
