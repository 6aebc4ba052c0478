//! The trigger that corrects rows of `user_sessions` before they are written by plain SQL.
//!
//! A service's row is taken as it is given, with what is missing filled in. Of a client's row only what a client may say
//! is taken. What the functions of the extension write arrives here as the tables' owner's, who is a service; what the
//! worker writes is not looked at. Under `session_replication_role = replica` the trigger does not fire: such rows have
//! been through it where they come from.

mod client;
mod fields;
mod lifecycle;
pub mod limit;
pub mod metadata;
mod restored;
mod row;
mod service;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::core::time::Micros;
use crate::{compat, errors, identity, installed, roster, settings, sync};
use row::{Corrected, Event};

/// What the rules need to know of the moment.
#[derive(Clone, Copy)]
struct Moment {
    now: Micros,
    /// now(), in SQL: when the transaction began.
    began: Micros,
    lifetime: Micros,
}

/// Corrects the row about to be written. Errors: 22023 for values that make no sense; for a client also 42501 for what
/// is not its own to say, and 53400 for too many sessions; 55000 where the library is not preloaded.
#[pg_extern]
fn presence_guard(fcinfo: pg_sys::FunctionCallInfo) -> Corrected {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame, and keeps the tuples until it returns.
    let event = unsafe { Event::of(fcinfo) };
    if sync::is_ignored() {
        return event.as_given();
    }
    if !roster::preloaded() {
        errors::not_preloaded();
    }
    if event.table() != installed::get().sessions {
        errors::not_permitted();
    }
    let moment = Moment {
        now: compat::now(),
        // SAFETY: reads a variable of this process.
        began: unsafe { pg_sys::GetCurrentTransactionStartTimestamp() },
        lifetime: settings::session_lifetime(),
    };
    let given = event.new.fields(event.old.as_ref());
    let mut fields = given.clone();
    let metadata = metadata::correct(event.old.as_ref(), &event.new);
    let by_service = identity::is_service();
    match event.old.as_ref() {
        None if by_service => service::insert(&mut fields, moment),
        None => client::insert(&mut fields, moment),
        Some(old) if by_service => {
            service::update(&old.fields(Some(old)), &mut fields, event.set, moment)
        }
        Some(old) => client::update(&old.fields(Some(old)), &mut fields, event.set, moment),
    }
    event.correct(&given, &fields, metadata)
}
