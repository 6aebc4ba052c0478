//! Which roles are services: trusted to act for everybody.

use pgrx::pg_sys;

use super::role_cache::SERVICE;
use crate::pg::{
    compat,
    installed::{self, Installed},
};

/// Returns whether the role whose rights now apply is a service: superuser, BYPASSRLS, member of the tables' owner, or
/// granted EXECUTE on the marker function. Errors: 55000 where the extension is not installed.
///
/// Inside a function with SECURITY DEFINER that role is the definer, as for every other right.
#[inline(always)]
pub fn is_service() -> bool {
    let role = compat::current_role();
    let installed = installed::get();
    match SERVICE.get(role, (installed.owner, installed.marker)) {
        Some(is_service) => is_service,
        None => look_up(role, installed),
    }
}

#[cold]
fn look_up(role: pg_sys::Oid, installed: Installed) -> bool {
    SERVICE.fill(role, (installed.owner, installed.marker), || {
        // SAFETY: catalog look-ups by OID; has_bypassrls_privilege is true for a superuser too.
        let is_trusted =
            unsafe { pg_sys::has_bypassrls_privilege(role) || pg_sys::has_privs_of_role(role, installed.owner) };
        is_trusted || compat::may_execute(role, installed.marker)
    })
}
