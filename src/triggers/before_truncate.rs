//! The trigger that lets only services and the owner truncate the extension's tables. Row-level security does not apply
//! to TRUNCATE, and GRANT ALL includes it.

use pgrx::{pg_sys, prelude::*};

use super::call::{Operation, Timing, TriggerCall, TriggerResult};
use crate::{
    identity,
    pg::{catalog, compat, errors, installed},
};

/// Allows a TRUNCATE. Errors: 42501 where the role is neither a service nor the owner of the table, or where the
/// function is not a BEFORE TRUNCATE trigger.
#[pg_extern]
pub fn _before_truncate(fcinfo: pg_sys::FunctionCallInfo) -> TriggerResult {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame.
    let call = unsafe { TriggerCall::of(fcinfo) };
    match call.operation {
        Operation::Truncate if call.timing == Timing::Before => {}
        _ => errors::misplaced_trigger(),
    }
    // SAFETY: a catalog lookup by OID.
    let is_owner = catalog::relation_owner(call.table())
        .is_some_and(|owner| unsafe { pg_sys::has_privs_of_role(compat::current_role(), owner) });
    if !(is_owner || installed::try_get().is_some() && identity::is_service()) {
        errors::truncate_refused();
    }
    TriggerResult::none()
}
