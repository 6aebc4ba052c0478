//! The trigger that corrects rows of `user_sessions` before they are written by plain SQL.
//!
//! A service's row is taken as it is given, with missing values filled in. Of a client's row only the values a client may
//! set are taken. What the functions of the extension write arrives here as the table owner's, who is a service; the
//! worker's own writes are skipped. Under `session_replication_role = replica` the trigger does not fire: such rows have
//! been through it where they come from.

use pgrx::{pg_sys, prelude::*};

use super::{
    call::{Operation, Timing, TriggerCall, TriggerResult},
    client, correction,
    fields::WriteContext,
    metadata, service,
};
use crate::{
    identity,
    pg::{compat, errors, installed},
    settings,
    store::own_write,
};

/// Corrects the row about to be written. Errors: 22023 for values that make no sense; for a client also 42501 for what it
/// may not set, and 53400 for too many sessions; 55000 where the library is not preloaded.
#[pg_extern]
pub fn _before_write(fcinfo: pg_sys::FunctionCallInfo) -> TriggerResult {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame, and keeps the tuples until it returns.
    let call = unsafe { TriggerCall::of(fcinfo) };
    let table = call.table();
    let (old, new, set) = match call.operation {
        Operation::Insert(new) if call.timing == Timing::Before => (None, new, Default::default()),
        Operation::Update { old, new, set } if call.timing == Timing::Before => (Some(old), new, set),
        _ => errors::not_permitted(),
    };
    if own_write::is_running() {
        return TriggerResult::unchanged(&new);
    }
    if !settings::is_preloaded() {
        errors::not_preloaded();
    }
    if table != installed::get().sessions {
        errors::not_permitted();
    }
    let context = WriteContext {
        now: compat::now(),
        // SAFETY: reads a variable of this process.
        began: unsafe { pg_sys::GetCurrentTransactionStartTimestamp() },
        lifetime: settings::session_lifetime(),
    };
    let given = new.fields(old.as_ref());
    let mut wanted = given.clone();
    let metadata = metadata::correct(old.as_ref(), &new);
    match (&old, identity::is_service()) {
        (None, true) => service::insert(&mut wanted, context),
        (None, false) => client::insert(&mut wanted, context),
        (Some(old), true) => service::update(&old.fields(Some(old)), &mut wanted, set, context),
        (Some(old), false) => client::update(&old.fields(Some(old)), &mut wanted, set, context),
    }
    correction::correct(&new, &given, &wanted, metadata)
}
