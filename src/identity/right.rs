//! Whether the caller may call one of our functions, for statements that are run without PostgreSQL calling it.

use std::cell::Cell;

use pgrx::pg_sys;

use super::service;
use crate::{compat, local::Local};

/// What was found out about one role and one function.
#[derive(Clone, Copy)]
struct Known {
    role: pg_sys::Oid,
    function: pg_sys::Oid,
    generation: u64,
    may: bool,
}

/// Nothing, as there is no such role.
const NOTHING: Known = Known {
    role: pg_sys::InvalidOid,
    function: pg_sys::InvalidOid,
    generation: 0,
    may: false,
};

static CACHE: Local<Cell<Known>> = Local::new(Cell::new(NOTHING));

/// Whether the role whose rights now apply is known to have EXECUTE on a function that is still as we made it. Looks
/// nothing up, and so cannot fail.
#[inline(always)]
pub fn may_call(function: pg_sys::Oid) -> bool {
    let known = CACHE.get();
    known.may && holds(&known, function)
}

/// Finds that out for the function that is being called, whose code in the library has the name `symbol`.
#[inline(always)]
pub fn learn(function: pg_sys::Oid, symbol: &str) {
    if !holds(&CACHE.get(), function) {
        look_up(function, symbol);
    }
}

#[inline(always)]
fn holds(known: &Known, function: pg_sys::Oid) -> bool {
    known.function == function
        && known.role == compat::current_role()
        && known.generation == service::generation()
}

#[cold]
fn look_up(function: pg_sys::Oid, symbol: &str) {
    service::listen();
    // Read first: a look-up that an invalidation has overtaken then holds for nobody.
    let generation = service::generation();
    let role = compat::current_role();
    // PostgreSQL has just asked for the right too, but maybe of another role: one statement can change it on the way.
    let may = compat::may_execute(role, function) && is_as_made(function, symbol);
    CACHE.set(Known {
        role,
        function,
        generation,
        may,
    });
}

/// Whether PostgreSQL, when asked for the function, does no more than call its code: nobody has replaced it, or given it
/// settings, its owner's rights or STRICT.
fn is_as_made(function: pg_sys::Oid, symbol: &str) -> bool {
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
        let is_ours = fixed.prolang == pg_sys::Oid::from(C_LANGUAGE)
            && column(pg_sys::Anum_pg_proc_prosrc)
                .and_then(|source| <&str as pgrx::FromDatum>::from_datum(source, false))
                == Some(symbol);
        let plain = !fixed.prosecdef
            && !fixed.proisstrict
            && column(pg_sys::Anum_pg_proc_proconfig).is_none();
        pg_sys::ReleaseSysCache(row);
        is_ours && plain
    }
}

/// `ClanguageId`, which pg_language.dat gives the language `c`.
const C_LANGUAGE: u32 = 13;
