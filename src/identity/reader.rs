//! Which roles are readers: allowed to see everybody's status.

use std::cell::Cell;

use pgrx::pg_sys;

use super::service;
use crate::compat;
use crate::installed::{self, Installed};

/// What was found out about one role.
#[derive(Clone, Copy)]
struct Known {
    role: pg_sys::Oid,
    sessions: pg_sys::Oid,
    generation: u64,
    reader: bool,
}

thread_local! {
    static CACHE: Cell<Option<Known>> = const { Cell::new(None) };
}

/// Whether the role whose rights now apply may see everybody's status: a service, or a role that may execute
/// `presence_of()`. Errors: 55000 where the extension is not installed.
#[inline]
pub fn is_reader() -> bool {
    let role = compat::current_role();
    let installed = installed::get();
    match CACHE.get() {
        Some(known)
            if known.role == role
                && known.sessions == installed.sessions
                && known.generation == service::generation() =>
        {
            known.reader
        }
        _ => look_up(role, installed),
    }
}

#[cold]
fn look_up(role: pg_sys::Oid, installed: Installed) -> bool {
    service::listen();
    let generation = service::generation();
    let reader = service::is_service()
        || installed::function(c"presence_of", &[pg_sys::UUIDARRAYOID], installed.schema)
            .is_some_and(|function| compat::may_execute(role, function));
    CACHE.set(Some(Known {
        role,
        sessions: installed.sessions,
        generation,
        reader,
    }));
    reader
}
