//! Caches of what a role may do, valid until one of the catalogs that this depends on changes.

use std::cell::Cell;

use pgrx::pg_sys::{self, InvalidOid, Oid};

use super::callable::Callable;
use crate::pg::process_local::ProcessLocal;

/// Whether a role is a service, where the extension has this owner and this marker type.
pub static SERVICE: RoleCache<(Oid, Oid)> = RoleCache::new((InvalidOid, InvalidOid));
/// Whether a role is a reader, where the extension has this table of sessions.
pub static READER: RoleCache<Oid> = RoleCache::new(InvalidOid);
/// Whether a role may call this function, and the function is the one that the extension created: for each [`Callable`].
pub static CALL_RIGHTS: [RoleCache<Oid>; Callable::COUNT] = [const { RoleCache::new(InvalidOid) }; Callable::COUNT];

/// Counts invalidations, so that an answer is not cached if one arrives while it is being found.
static GENERATION: ProcessLocal<Cell<u64>> = ProcessLocal::new(Cell::new(0));
/// The hash value of the marker type in the cache of types: others come and go with each table.
static MARKER_HASH: ProcessLocal<Cell<Option<u32>>> = ProcessLocal::new(Cell::new(None));
static REGISTERED: ProcessLocal<Cell<bool>> = ProcessLocal::new(Cell::new(false));

/// One answer for one role, the last that it was needed for. `K` is what the answer depends on besides the role.
pub struct RoleCache<K>(ProcessLocal<Cell<Cached<K>>>);

#[derive(Clone, Copy)]
struct Cached<K> {
    role: Oid,
    key: K,
    yes: bool,
}

impl<K: Copy + PartialEq> RoleCache<K> {
    /// An empty cache: no role has the OID 0. With a key of zeroes it is all zeroes, so that it shares a page of memory
    /// with the rest that a beat reads.
    const fn new(key: K) -> RoleCache<K> {
        RoleCache(ProcessLocal::new(Cell::new(Cached {
            role: InvalidOid,
            key,
            yes: false,
        })))
    }

    /// Returns the cached answer for a role; `None` where [`RoleCache::fill`] has to find it.
    #[inline(always)]
    pub fn get(&self, role: Oid, key: K) -> Option<bool> {
        let cached = self.0.get();
        (cached.role == role && cached.key == key).then_some(cached.yes)
    }

    /// Returns the answer of `find` for a role, and caches it.
    #[cold]
    pub fn fill(&self, role: Oid, key: K, find: impl FnOnce() -> bool) -> bool {
        register();
        let generation = GENERATION.get();
        let yes = find();
        if GENERATION.get() == generation {
            self.0.set(Cached { role, key, yes });
        }
        yes
    }

    /// Empties the cache.
    fn clear(&self) {
        self.0.set(Cached {
            role: InvalidOid,
            ..self.0.get()
        });
    }
}

/// Empties the caches from now on when the privileges on a type change.
pub fn watch_type(id: Oid) {
    let nothing = pg_sys::Datum::from(0);
    // SAFETY: computes a hash value.
    let hash = unsafe {
        pg_sys::GetSysCacheHashValue(
            pg_sys::SysCacheIdentifier::TYPEOID as i32,
            pg_sys::Datum::from(id),
            nothing,
            nothing,
            nothing,
        )
    };
    MARKER_HASH.set(Some(hash));
}

/// Registers for invalidations, once per backend: PostgreSQL cannot unregister a callback.
fn register() {
    use pg_sys::SysCacheIdentifier::{AUTHMEMMEMROLE, AUTHOID, DATABASEOID, PROCOID, TYPEOID};
    if REGISTERED.replace(true) {
        return;
    }
    // DATABASEOID: the owner of a database is a member of pg_database_owner.
    for cache in [AUTHOID, AUTHMEMMEMROLE, DATABASEOID, PROCOID] {
        // SAFETY: the callback only writes to cells and never raises.
        unsafe { pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(invalidate), pg_sys::Datum::from(0)) };
    }
    // SAFETY: as above.
    unsafe { pg_sys::CacheRegisterSyscacheCallback(TYPEOID as i32, Some(invalidate_type), pg_sys::Datum::from(0)) };
}

unsafe extern "C-unwind" fn invalidate(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    GENERATION.set(GENERATION.get().wrapping_add(1));
    SERVICE.clear();
    READER.clear();
    CALL_RIGHTS.iter().for_each(RoleCache::clear);
}

/// Types change with each table that is created or dropped; only the marker matters. The hash 0 stands for all types.
unsafe extern "C-unwind" fn invalidate_type(arg: pg_sys::Datum, cache: i32, hash: u32) {
    if hash == 0 || MARKER_HASH.get() == Some(hash) {
        // SAFETY: may be called at any time.
        unsafe { invalidate(arg, cache, hash) };
    }
}
