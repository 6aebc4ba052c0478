//! The role whose rights apply, and what it may execute.

use pgrx::pg_sys;

mod unguarded {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        pub fn GetUserId() -> pg_sys::Oid;
    }
}

/// The role whose rights now apply. Declared here once more because pgrx guards each call with a `sigsetjmp`, which
/// costs more than the call itself.
#[inline]
pub fn current() -> pg_sys::Oid {
    // SAFETY: returns a variable of this process; cannot raise while it runs SQL.
    unsafe { unguarded::GetUserId() }
}

/// Whether a role may execute a function.
pub fn may_execute(role: pg_sys::Oid, function: pg_sys::Oid) -> bool {
    let right = pg_sys::ACL_EXECUTE as pg_sys::AclMode;
    // SAFETY: catalog look-ups by OID. A function dropped in the meantime raises an error, as anywhere else.
    let answer = unsafe {
        #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
        {
            pg_sys::pg_proc_aclcheck(function, role, right)
        }
        #[cfg(not(any(feature = "pg13", feature = "pg14", feature = "pg15")))]
        {
            pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, role, right)
        }
    };
    answer == pg_sys::AclResult::ACLCHECK_OK
}
