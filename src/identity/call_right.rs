//! Whether the caller may call one of our functions, for statements that are run without PostgreSQL calling it.

use pgrx::pg_sys;

use super::{callable::Callable, role_cache::CALL_RIGHTS};
use crate::pg::compat;

/// Returns which function this is, if the role whose rights now apply is known to have EXECUTE on it, and it is still as
/// the extension created it. Reads no catalog, and so cannot fail.
#[inline(always)]
pub fn may_call(function: pg_sys::Oid) -> Option<Callable> {
    let role = compat::current_role();
    Callable::ALL
        .into_iter()
        .find(|callable| CALL_RIGHTS[*callable as usize].get(role, function) == Some(true))
}

/// Caches the answer of [`may_call`] for the function that is being called: once for an expression, not again for each row.
///
/// # Safety
/// PostgreSQL is calling `callable` with this call frame.
#[inline(always)]
pub unsafe fn remember_call_right(frame: pg_sys::FunctionCallInfo, callable: Callable) {
    // SAFETY: as the caller promises; flinfo is null or describes the function, and fn_extra is the function's own.
    let Some(function) = (unsafe { (*frame).flinfo.as_mut() }) else {
        return;
    };
    if function.fn_extra.is_null() {
        function.fn_extra = (&raw mut *function).cast();
        let role = compat::current_role();
        if CALL_RIGHTS[callable as usize].get(role, function.fn_oid).is_none() {
            look_up(role, function, callable);
        }
    }
}

#[cold]
fn look_up(role: pg_sys::Oid, function: &pg_sys::FmgrInfo, callable: Callable) {
    callable.found_at(function.fn_addr);
    // PostgreSQL has just checked the right too, but maybe for another role: a statement can change it before the call.
    CALL_RIGHTS[callable as usize].fill(role, function.fn_oid, || {
        compat::may_execute(role, function.fn_oid) && is_unmodified(function.fn_oid, callable.symbol())
    });
}

/// Returns whether PostgreSQL does no more for a call of the function than to run its code: nobody has replaced it, or
/// given it settings, its owner's rights or STRICT.
fn is_unmodified(function: pg_sys::Oid, symbol: &str) -> bool {
    use pg_sys::SysCacheIdentifier::PROCOID;
    // SAFETY: the row stays pinned until ReleaseSysCache, and is read only before; prosrc is never null.
    unsafe {
        let row = pg_sys::SearchSysCache1(PROCOID as i32, pg_sys::Datum::from(function));
        if row.is_null() {
            return false;
        }
        let column = |number: u32| {
            let mut is_null = false;
            let value = pg_sys::SysCacheGetAttr(PROCOID as i32, row, number as i16, &mut is_null);
            (!is_null).then_some(value)
        };
        let fixed = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_proc>();
        let runs_our_code = fixed.prolang == pg_sys::Oid::from(C_LANGUAGE)
            && column(pg_sys::Anum_pg_proc_prosrc)
                .and_then(|source| <&str as pgrx::FromDatum>::from_datum(source, false))
                == Some(symbol);
        let has_no_options = !fixed.prosecdef && !fixed.proisstrict && column(pg_sys::Anum_pg_proc_proconfig).is_none();
        pg_sys::ReleaseSysCache(row);
        runs_our_code && has_no_options
    }
}

/// `ClanguageId`: pg_language.dat assigns this OID to the language `c`.
const C_LANGUAGE: u32 = 13;
