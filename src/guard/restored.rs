//! The trigger that lets `user_presence` be restored while the worker is at work.
//!
//! pg_restore may bring the sessions first (with several jobs, the largest table comes first). The worker then writes
//! what they say about their users at once, and the dumped rows of the same users would break the whole restore.

use pgrx::pg_sys;
use pgrx::prelude::*;
use uuid::Uuid;

use super::row::{Corrected, Event};
use crate::store::statement::{Sees, Statement};
use crate::store::value::Value;
use crate::{compat, errors, installed};

const USER_ID: usize = 1;

thread_local! {
    static KNOWN: Statement = const { Statement::new(
        |s| format!("SELECT FROM {s}.user_presence WHERE user_id = $1"),
        &[pg_sys::UUIDOID],
    ) };
}

/// Leaves out a row of a user who has one already, unless the worker writes it. What the worker has written is newer.
#[pg_extern]
fn presence_restore(fcinfo: pg_sys::FunctionCallInfo) -> Corrected {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame, and keeps the tuples until it returns.
    let event = unsafe { Event::of(fcinfo) };
    if compat::is_background_worker() {
        return event.as_given();
    }
    if event.table() != installed::get().presence {
        errors::not_permitted();
    }
    match event.new.uuid(USER_ID) {
        Some(user_id) if is_known(&user_id) => Corrected::nothing(),
        _ => event.as_given(),
    }
}

fn is_known(user_id: &Uuid) -> bool {
    KNOWN.with(|known| {
        known.read(Sees::Latest, &[Value::Uuid(user_id)], |rows| {
            rows.count() > 0
        })
    })
}
