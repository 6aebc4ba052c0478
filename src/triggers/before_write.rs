//! The trigger that corrects rows of `user_sessions` before they are written by plain SQL.
//!
//! A service's row is written as submitted, with missing values filled in. Of a client's row only the values that a
//! client may set are used. The extension's functions write as the owner of the table, which is a service; writes of
//! what the roster already knows are passed through. Under `session_replication_role = replica` the trigger does not
//! fire: replicated rows were corrected where they were first written.

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

/// Returns the row that is written in place of the submitted one. Errors: 22023 where a value is invalid, 55000 where
/// the library is not preloaded; for a client also 42501 where it may not set a value, 53400 where it has too many
/// sessions.
#[pg_extern]
pub fn _before_write(fcinfo: pg_sys::FunctionCallInfo) -> TriggerResult {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame, and keeps the tuples until the function
    // returns.
    let call = unsafe { TriggerCall::of(fcinfo) };
    let table = call.table();
    let (old, new, set) = match call.operation {
        Operation::Insert(new) if call.timing == Timing::Before => (None, new, Default::default()),
        Operation::Update { old, new, set } if call.timing == Timing::Before => (Some(old), new, set),
        _ => errors::misplaced_trigger(),
    };
    if own_write::is_running() {
        return TriggerResult::unchanged(&new);
    }
    if !settings::is_preloaded() {
        errors::not_preloaded();
    }
    if table != installed::get().sessions {
        errors::misplaced_trigger();
    }
    let context = WriteContext {
        now: compat::now(),
        // SAFETY: reads a variable of this process.
        transaction_start: unsafe { pg_sys::GetCurrentTransactionStartTimestamp() },
        lifetime: settings::session_lifetime(),
    };
    let submitted = new.fields(old.as_ref());
    let mut corrected = submitted.clone();
    let metadata = metadata::correct(old.as_ref(), &new);
    match (&old, identity::is_service()) {
        (None, true) => service::insert(&mut corrected, context),
        (None, false) => client::insert(&mut corrected, context),
        (Some(old), true) => service::update(&old.fields(Some(old)), &mut corrected, set, context),
        (Some(old), false) => client::update(&old.fields(Some(old)), &mut corrected, set, context),
    }
    correction::correct(&new, &submitted, &corrected, metadata)
}
