//! Which roles are services: trusted to act for everybody.

use std::cell::Cell;

use pgrx::pg_sys;

use crate::compat;
use crate::installed::{self, Installed};
use crate::local::Local;

/// What was found out about one role.
#[derive(Clone, Copy)]
struct Known {
    role: pg_sys::Oid,
    owner: pg_sys::Oid,
    marker: pg_sys::Oid,
    service: bool,
}

/// Nothing, as there is no such role. All zeroes, so that it shares a page of memory with the rest that a beat reads.
const NOTHING: Known = Known {
    role: pg_sys::InvalidOid,
    owner: pg_sys::InvalidOid,
    marker: pg_sys::InvalidOid,
    service: false,
};

static CACHE: Local<Cell<Known>> = Local::new(Cell::new(NOTHING));
/// Counts invalidations, so that a look-up overtaken by one is not kept.
static GENERATION: Local<Cell<u64>> = Local::new(Cell::new(0));
static LISTENING: Local<Cell<bool>> = Local::new(Cell::new(false));

/// Whether the role whose rights now apply is a service: superuser, BYPASSRLS, member of the tables' owner, or
/// granted EXECUTE on the marker function. Errors: 55000 where the extension is not installed.
///
/// Inside a function of somebody's with SECURITY DEFINER that is the definer, as for every other right.
#[inline(always)]
pub fn is_service() -> bool {
    let role = compat::current_role();
    let installed = installed::get();
    let known = CACHE.get();
    if known.role == role && known.owner == installed.owner && known.marker == installed.marker {
        known.service
    } else {
        look_up(role, installed)
    }
}

#[cold]
fn look_up(role: pg_sys::Oid, installed: Installed) -> bool {
    listen();
    let before = GENERATION.get();
    // SAFETY: catalog look-ups by OID; has_bypassrls_privilege is true for a superuser too.
    let service = unsafe {
        pg_sys::has_bypassrls_privilege(role) || pg_sys::has_privs_of_role(role, installed.owner)
    } || compat::may_execute(role, installed.marker);
    if GENERATION.get() == before {
        CACHE.set(Known {
            role,
            owner: installed.owner,
            marker: installed.marker,
            service,
        });
    }
    service
}

/// Registers for changes to what [`look_up`] reads, once per backend (PostgreSQL keeps such registrations for good).
pub(super) fn listen() {
    use pg_sys::SysCacheIdentifier::{AUTHMEMMEMROLE, AUTHOID, DATABASEOID, PROCOID};
    if LISTENING.replace(true) {
        return;
    }
    // DATABASEOID: the owner of a database is a member of pg_database_owner.
    for cache in [AUTHOID, AUTHMEMMEMROLE, DATABASEOID, PROCOID] {
        // SAFETY: the callback only writes to cells and never raises.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(
                cache as i32,
                Some(forget),
                pg_sys::Datum::from(0),
            )
        };
    }
}

/// A number that changes when the rights of some role may have. Counts only once somebody listens.
#[inline]
pub(super) fn generation() -> u64 {
    GENERATION.get()
}

unsafe extern "C-unwind" fn forget(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    GENERATION.set(GENERATION.get().wrapping_add(1));
    CACHE.set(NOTHING);
}
