//! What has been found out about roles. It is kept until a catalog that it was read from changes.

use std::cell::Cell;

use pgrx::pg_sys::{self, InvalidOid, Oid};

use crate::pg::process_local::Local;

/// Whether a role is a service, where the extension has this owner and this marker function.
pub static SERVICE: RoleCache<(Oid, Oid)> = RoleCache::new((InvalidOid, InvalidOid));
/// Whether a role is a reader, where the extension has this table of sessions.
pub static READER: RoleCache<Oid> = RoleCache::new(InvalidOid);
/// Whether a role may call this function, and the function is the one that the extension created.
pub static CALL_RIGHT: RoleCache<Oid> = RoleCache::new(InvalidOid);

/// Counts invalidations, so that an answer that one has overtaken is not kept.
static GENERATION: Local<Cell<u64>> = Local::new(Cell::new(0));
static REGISTERED: Local<Cell<bool>> = Local::new(Cell::new(false));

/// The answer to one question about the role that asked last. `K` is what the answer depends on besides the role.
pub struct RoleCache<K>(Local<Cell<Answer<K>>>);

#[derive(Clone, Copy)]
struct Answer<K> {
    role: Oid,
    key: K,
    yes: bool,
}

impl<K: Copy + PartialEq> RoleCache<K> {
    /// An empty cache: no role has the OID 0. With a key of zeroes it is all zeroes, so that it shares a page of memory
    /// with the rest that a beat reads.
    const fn new(key: K) -> RoleCache<K> {
        RoleCache(Local::new(Cell::new(Answer {
            role: InvalidOid,
            key,
            yes: false,
        })))
    }

    /// Returns the answer for a role, or `None` where it has to be found out.
    #[inline(always)]
    pub fn get(&self, role: Oid, key: K) -> Option<bool> {
        let answer = self.0.get();
        (answer.role == role && answer.key == key).then_some(answer.yes)
    }

    /// Finds out the answer for a role with `find`, keeps it and returns it.
    #[cold]
    pub fn fill(&self, role: Oid, key: K, find: impl FnOnce() -> bool) -> bool {
        register();
        let generation = GENERATION.get();
        let yes = find();
        if GENERATION.get() == generation {
            self.0.set(Answer { role, key, yes });
        }
        yes
    }

    fn clear(&self) {
        self.0.set(Answer {
            role: InvalidOid,
            ..self.0.get()
        });
    }
}

/// Registers for changes to the catalogs, once per backend: PostgreSQL has no way to unregister.
fn register() {
    use pg_sys::SysCacheIdentifier::{AUTHMEMMEMROLE, AUTHOID, DATABASEOID, PROCOID};
    if REGISTERED.replace(true) {
        return;
    }
    // DATABASEOID: the owner of a database is a member of pg_database_owner.
    for cache in [AUTHOID, AUTHMEMMEMROLE, DATABASEOID, PROCOID] {
        // SAFETY: the callback only writes to cells and never raises.
        unsafe { pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(invalidate), pg_sys::Datum::from(0)) };
    }
}

unsafe extern "C-unwind" fn invalidate(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    GENERATION.set(GENERATION.get().wrapping_add(1));
    SERVICE.clear();
    READER.clear();
    CALL_RIGHT.clear();
}
