//! The trigger that allows `user_presence` to be restored while the worker runs.
//!
//! pg_restore may load the sessions first: with several jobs, the largest table comes first. The worker then writes the
//! presence of their users at once, and the dumped rows of the same users would fail the restore as duplicates.

use pgrx::{pg_sys, prelude::*};
use uuid::Uuid;

use super::call::{Operation, Timing, TriggerCall, TriggerResult};
use crate::{
    pg::{compat, errors, installed},
    store::{
        statement::{Snapshot, Statement},
        value::Value,
    },
};

/// The attribute number of `user_id` in `user_presence`.
const USER_ID: usize = 1;

thread_local! {
    static FIND_USER: Statement = const { Statement::new(
        |s| format!("SELECT FROM {s}.user_presence WHERE user_id = $1"),
        &[pg_sys::UUIDOID],
    ) };
}

/// Skips the row of a user who already has one, as that is newer. Rows that the worker writes are not skipped. Errors:
/// 55000 where the function is not the trigger of `user_presence`.
#[pg_extern]
pub fn _restore(fcinfo: pg_sys::FunctionCallInfo) -> TriggerResult {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame, and keeps the tuples until the function
    // returns.
    let call = unsafe { TriggerCall::of(fcinfo) };
    let table = call.table();
    let row = match call.operation {
        Operation::Insert(row) if call.timing == Timing::Before => row,
        _ => errors::misplaced_trigger(),
    };
    if compat::is_background_worker() {
        return TriggerResult::unchanged(&row);
    }
    if table != installed::get().presence {
        errors::misplaced_trigger();
    }
    match row.uuid(USER_ID) {
        Some(user_id) if has_row(&user_id) => TriggerResult::skip_row(),
        _ => TriggerResult::unchanged(&row),
    }
}

fn has_row(user_id: &Uuid) -> bool {
    FIND_USER.with(|find| find.read(Snapshot::Latest, &[Value::Uuid(user_id)], |rows| rows.count() > 0))
}
