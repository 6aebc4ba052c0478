//! The rights that our own statements run with: those of the tables' owner.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::planning::Settings;
use crate::pg::installed;

/// What our statements run under. A plan is often made while the tables are empty or not yet analyzed, and kept: it is
/// to use the indexes all the same, and not to be compiled for the cost that this looks like.
const SETTINGS: [(&CStr, &CStr); 3] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"enable_seqscan", c"off"),
    (c"jit", c"off"),
];

/// The rights and the search path of the tables' owner, for as long as it lives.
struct OwnerRights {
    user: pg_sys::Oid,
    context: i32,
    settings: Option<Settings>,
}

impl OwnerRights {
    fn take() -> OwnerRights {
        let owner = installed::get().owner;
        let mut rights = OwnerRights {
            user: pg_sys::InvalidOid,
            context: 0,
            settings: None,
        };
        // SAFETY: plain calls; what they change is put back by `drop`, or by the abort if an error gets past it.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut rights.user, &mut rights.context);
            pg_sys::SetUserIdAndSecContext(
                owner,
                rights.context
                    | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32
                    | pg_sys::SECURITY_RESTRICTED_OPERATION as i32,
            );
        }
        rights.settings = Some(Settings::choose(&SETTINGS));
        rights
    }
}

impl Drop for OwnerRights {
    fn drop(&mut self) {
        // With an error on its way, the abort of the (sub)transaction restores the user id itself.
        if std::thread::panicking() {
            return;
        }
        // In the reverse order of `take`.
        self.settings = None;
        // SAFETY: what `take` found.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}

/// Runs `f` with the rights of the tables' owner, as a security-restricted operation, under a search path that
/// nobody can plant anything in. Only our own statements belong in here, never anything a caller wrote.
pub fn as_owner<R>(f: impl FnOnce() -> R) -> R {
    let _rights = OwnerRights::take();
    f()
}
