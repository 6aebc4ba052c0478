//! The rights that our own statements run with: those of the tables' owner.

use std::{cell::Cell, ffi::CStr};

use pgrx::pg_sys;

use super::planning::SettingsScope;
use crate::pg::{installed, process_local::ProcessLocal};

/// How many of our statements are in progress, one inside of another.
static DEPTH: ProcessLocal<Cell<u32>> = ProcessLocal::new(Cell::new(0));

/// The settings that our statements run under. A plan is often made while the tables are empty or not yet analyzed, and
/// then kept: it is to use the indexes all the same, and not to be JIT-compiled because of an overestimated cost.
const SETTINGS: [(&CStr, &CStr); 3] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"enable_seqscan", c"off"),
    (c"jit", c"off"),
];

/// The rights of the tables' owner, until it is dropped.
struct OwnerRights {
    previous_user: pg_sys::Oid,
    previous_context: i32,
    settings: Option<SettingsScope>,
}

impl OwnerRights {
    fn take() -> OwnerRights {
        let owner = installed::get().owner;
        let mut rights = OwnerRights {
            previous_user: pg_sys::InvalidOid,
            previous_context: 0,
            settings: None,
        };
        // SAFETY: plain calls; `drop` restores what they change, or the abort if an error gets past it.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut rights.previous_user, &mut rights.previous_context);
            pg_sys::SetUserIdAndSecContext(
                owner,
                rights.previous_context
                    | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32
                    | pg_sys::SECURITY_RESTRICTED_OPERATION as i32,
            );
        }
        DEPTH.set(DEPTH.get() + 1);
        rights.settings = Some(SettingsScope::set(&SETTINGS));
        rights
    }
}

impl Drop for OwnerRights {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        // When an error unwinds, the abort of the (sub)transaction restores the user id itself.
        if std::thread::panicking() {
            return;
        }
        // In the reverse order of `take`.
        self.settings = None;
        // SAFETY: restores what `take` found.
        unsafe { pg_sys::SetUserIdAndSecContext(self.previous_user, self.previous_context) };
    }
}

/// Runs `f` with the rights of the tables' owner, as a security-restricted operation, under a search path in which
/// nobody can plant anything. For our own statements only, never for anything that a caller wrote.
pub fn as_owner<R>(f: impl FnOnce() -> R) -> R {
    let _rights = OwnerRights::take();
    f()
}

/// Runs `f` with the rights of a role, as a security-restricted operation, as PostgreSQL runs a function with SECURITY
/// DEFINER. What `f` runs sets its own search path.
pub fn as_role<R>(role: pg_sys::Oid, f: impl FnOnce() -> R) -> R {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: plain calls; restored below, or by the abort if an error gets past it.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
        pg_sys::SetUserIdAndSecContext(role, context | restricted as i32);
    }
    let result = f();
    // SAFETY: restores what was found.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    result
}

/// Returns whether a statement of ours is in progress.
#[inline(always)]
pub fn are_in_force() -> bool {
    DEPTH.get() > 0
}
