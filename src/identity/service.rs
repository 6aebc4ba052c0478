//! Which roles are services: trusted to act for everybody.

use pgrx::pg_sys;

use super::role_cache::{self, SERVICE};
use crate::pg::{
    catalog, compat,
    installed::{self, Installed},
};

/// Returns whether the role whose rights now apply is a service: superuser, BYPASSRLS, member of the tables' owner or of
/// the database's, or granted USAGE on the marker type, other than by a grant to PUBLIC. Errors: 55000 where the extension is not installed.
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
        let has_marker = installed.marker != pg_sys::InvalidOid;
        if has_marker {
            role_cache::watch_type(installed.marker);
        }
        // SAFETY: catalog look-ups by OID.
        let is_member = |of: pg_sys::Oid| unsafe { pg_sys::has_privs_of_role(role, of) };
        // SAFETY: as above; true for a superuser too.
        let bypasses_rls = unsafe { pg_sys::has_bypassrls_privilege(role) };
        bypasses_rls
            || is_member(installed.owner)
            || catalog::database_owner().is_some_and(is_member)
            || has_marker && catalog::usage_grantees(installed.marker).into_iter().any(is_member)
    })
}
