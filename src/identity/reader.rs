//! Which roles are readers: allowed to see everybody's status.

use pgrx::pg_sys;

use super::{role_cache::READER, service::is_service};
use crate::pg::{
    compat,
    installed::{self, Installed},
};

/// Returns whether the role whose rights now apply may see everybody's status: a service, or a role that may execute
/// `presence_of()`. Errors: 55000 where the extension is not installed.
#[inline]
pub fn is_reader() -> bool {
    let role = compat::current_role();
    let installed = installed::get();
    match READER.get(role, installed.sessions) {
        Some(is_reader) => is_reader,
        None => look_up(role, installed),
    }
}

#[cold]
fn look_up(role: pg_sys::Oid, installed: Installed) -> bool {
    READER.fill(role, installed.sessions, || {
        is_service()
            || installed::function(
                c"presence_of",
                &[pg_sys::UUIDARRAYOID, pg_sys::TEXTARRAYOID],
                installed.schema,
            )
            .is_some_and(|function| compat::may_execute(role, function))
    })
}
