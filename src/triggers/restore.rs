//! The trigger that lets `user_presence` be restored while the worker runs.
//!
//! pg_restore may load the sessions first (with several jobs, the largest table comes first). The worker then writes the
//! presence of their users at once, and the dumped rows of the same users would break the whole restore.

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
    static KNOWN: Statement = const { Statement::new(
        |s| format!("SELECT FROM {s}.user_presence WHERE user_id = $1"),
        &[pg_sys::UUIDOID],
    ) };
}

/// Leaves out a row of a user who has one already, unless the worker writes it. What the worker has written is newer.
#[pg_extern]
pub fn _restore(fcinfo: pg_sys::FunctionCallInfo) -> TriggerResult {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame, and keeps the tuples until it returns.
    let call = unsafe { TriggerCall::of(fcinfo) };
    let table = call.table();
    let row = match call.operation {
        Operation::Insert(row) if call.timing == Timing::Before => row,
        _ => errors::not_permitted(),
    };
    if compat::is_background_worker() {
        return TriggerResult::unchanged(&row);
    }
    if table != installed::get().presence {
        errors::not_permitted();
    }
    match row.uuid(USER_ID) {
        Some(user_id) if is_known(&user_id) => TriggerResult::skip_row(),
        _ => TriggerResult::unchanged(&row),
    }
}

fn is_known(user_id: &Uuid) -> bool {
    KNOWN.with(|known| known.read(Snapshot::Latest, &[Value::Uuid(user_id)], |rows| rows.count() > 0))
}
