//! The catalog entries of the extension in this database: its schema, its tables and their owner.
//!
//! They are cached in each backend, so that a hit costs no catalog access. Whatever changes them (CREATE or DROP
//! EXTENSION, their rollback, ALTER TABLE … OWNER or RENAME) sends a relcache invalidation for one of the five tables,
//! to this backend at once and to others at commit; only such a message empties the cache. "Not installed" is never
//! cached, as there is no table whose invalidation could end it.

use std::{cell::Cell, ffi::CStr};

use pgrx::pg_sys;

use crate::pg::{errors, members, process_local::ProcessLocal, text};

const EXTENSION: &CStr = c"pg_presence";

/// The extension in the current database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The row of `pg_extension`.
    pub extension: pg_sys::Oid,
    /// The schema of all objects below.
    pub schema: pg_sys::Oid,
    /// Table `user_sessions`.
    pub sessions: pg_sys::Oid,
    /// Table `user_presence`.
    pub presence: pg_sys::Oid,
    /// Table `presence_changes`.
    pub changes: pg_sys::Oid,
    /// Table `_feed_state`.
    pub state: pg_sys::Oid,
    /// Table `declared_statuses`.
    pub declared: pg_sys::Oid,
    /// Its index by user and source; invalid if it is missing.
    pub declared_key: pg_sys::Oid,
    /// Its index on the rows that hide users; invalid if it is missing.
    pub visibility_index: pg_sys::Oid,
    /// The role that owns `user_sessions`.
    pub owner: pg_sys::Oid,
    /// Type `_service_marker`: a role with the USAGE privilege on it is a service. Invalid if it is missing.
    pub marker: pg_sys::Oid,
}

impl Installed {
    /// Returns the five tables.
    pub fn tables(&self) -> [pg_sys::Oid; 5] {
        [self.sessions, self.presence, self.changes, self.state, self.declared]
    }
}

static CACHE: ProcessLocal<Cell<Option<Installed>>> = ProcessLocal::new(Cell::new(None));
/// Counts invalidations of the five tables.
static CHANGES: ProcessLocal<Cell<u32>> = ProcessLocal::new(Cell::new(0));
/// Counts invalidations, so that a lookup during which one arrives is not cached.
static GENERATION: ProcessLocal<Cell<u64>> = ProcessLocal::new(Cell::new(0));
/// Whether the callback for invalidations is registered.
static REGISTERED: ProcessLocal<Cell<bool>> = ProcessLocal::new(Cell::new(false));

/// Returns the extension in this database, or `None` if it is not installed. Needs a transaction unless cached.
#[inline]
pub fn try_get() -> Option<Installed> {
    match CACHE.get() {
        Some(found) => Some(found),
        None => find_and_cache(),
    }
}

/// Returns the extension in this database. Errors with 55000 if it is not installed or its objects are incomplete.
#[inline]
pub fn get() -> Installed {
    try_get().unwrap_or_else(|| missing())
}

/// Returns whether the next call will have to find the extension.
pub fn is_uncached() -> bool {
    CACHE.get().is_none()
}

/// Errors with 55000: the extension is not installed, or else its objects are incomplete.
#[cold]
pub fn missing() -> ! {
    match extension_row() {
        Some(_) => errors::damaged_install(),
        None => errors::not_installed(),
    }
}

/// Returns the name of the extension's schema, quoted if necessary, for use in a statement in any database encoding.
pub fn schema_name() -> String {
    let schema = get().schema;
    // SAFETY: both functions take and return palloc'd C strings that live in the current memory context.
    let (name, quoted) = unsafe {
        let name = pg_sys::get_namespace_name(schema);
        if name.is_null() {
            errors::not_installed();
        }
        let quoted = pg_sys::quote_identifier(name);
        (CStr::from_ptr(name), CStr::from_ptr(quoted))
    };
    let (name, quoted) = (text::decode(name.to_bytes()), text::decode(quoted.to_bytes()));
    if text::encode(quoted) == quoted.as_bytes() {
        quoted.to_owned()
    } else {
        unicode_identifier(name)
    }
}

/// Returns a name as a Unicode-escaped identifier, in ASCII.
fn unicode_identifier(name: &str) -> String {
    let mut identifier = String::from("U&\"");
    for character in name.chars() {
        match character {
            '"' => identifier.push_str("\"\""),
            '\\' => identifier.push_str("\\\\"),
            ascii if ascii.is_ascii() => identifier.push(ascii),
            other => identifier.push_str(&format!("\\+{:06x}", u32::from(other))),
        }
    }
    identifier + "\""
}

#[cold]
fn find_and_cache() -> Option<Installed> {
    register_callback();
    let before = GENERATION.get();
    let found = find();
    if GENERATION.get() == before {
        CACHE.set(found);
    }
    found
}

/// Registers for relcache invalidations, once per backend, as PostgreSQL cannot unregister a callback.
fn register_callback() {
    if !REGISTERED.replace(true) {
        // SAFETY: the callback only writes to cells and never raises.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(on_relcache), pg_sys::Datum::from(0)) };
    }
}

unsafe extern "C-unwind" fn on_relcache(_arg: pg_sys::Datum, relid: pg_sys::Oid) {
    GENERATION.set(GENERATION.get().wrapping_add(1));
    if let Some(cached) = CACHE.get()
        && (relid == pg_sys::InvalidOid || cached.tables().contains(&relid))
    {
        CACHE.set(None);
        CHANGES.set(CHANGES.get().wrapping_add(1));
    }
}

/// Returns a number that changes whenever something about the extension may have changed, once this backend has
/// received the invalidation.
pub fn changes() -> u32 {
    CHANGES.get()
}

/// The five tables, in the order in which the install script creates them.
const TABLES: [&CStr; 5] = [
    c"user_sessions",
    c"user_presence",
    c"presence_changes",
    c"_feed_state",
    c"declared_statuses",
];

fn find() -> Option<Installed> {
    let (extension, schema) = extension_row()?;
    // SAFETY: the names are valid C strings; the result for an unknown one is InvalidOid.
    let mut tables = TABLES.map(|name| unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) });
    if tables.contains(&pg_sys::InvalidOid) {
        find_renamed(extension, &mut tables);
    }
    if tables.contains(&pg_sys::InvalidOid) {
        return None;
    }
    let [sessions, presence, changes, state, declared] = tables;
    // SAFETY: as above.
    let index = |name: &CStr| unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    Some(Installed {
        extension,
        schema,
        sessions,
        presence,
        changes,
        state,
        declared,
        declared_key: index(c"declared_statuses_pkey"),
        visibility_index: index(c"declared_statuses_visibility_idx"),
        owner: owner_of(sessions)?,
        marker: type_named(c"_service_marker", schema).unwrap_or(pg_sys::InvalidOid),
    })
}

/// Fills in tables that were renamed, or moved to another schema, so that what needs only memory goes on. They belong to
/// the extension all the same, and their OIDs are in the order of their creation.
fn find_renamed(extension: pg_sys::Oid, tables: &mut [pg_sys::Oid; 5]) {
    let members = members::tables(extension);
    if members.len() < tables.len() {
        return;
    }
    let known = *tables;
    for (table, member) in tables.iter_mut().zip(members) {
        if *table == pg_sys::InvalidOid && !known.contains(&member) {
            *table = member;
        }
    }
}

/// Returns the OID and the schema of the extension. Before PostgreSQL 18, pg_extension has no syscache, hence the scan.
fn extension_row() -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    // SAFETY: a catalog index scan under an AccessShareLock, as in get_extension_oid; the key outlives the scan, and
    // the row is copied before the scan ends.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::ExtensionRelationId, pg_sys::AccessShareLock as i32);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_extension_extname as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_NAMEEQ.into(),
            pg_sys::Datum::from(EXTENSION.as_ptr()),
        );
        let scan = pg_sys::systable_beginscan(
            catalog,
            pg_sys::ExtensionNameIndexId.into(),
            true,
            std::ptr::null_mut(),
            1,
            &mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let found = (!tuple.is_null()).then(|| {
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_extension>();
            ((*row).oid, (*row).extnamespace)
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
        found
    }
}

fn owner_of(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the tuple stays pinned until ReleaseSysCache and is not read afterwards.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// Returns the type with this name, if it exists in `schema`.
fn type_named(name: &CStr, schema: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the key of TYPENAMENSP is name and schema.
    let oid = unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
            pg_sys::Anum_pg_type_oid as i16,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::from(0),
            pg_sys::Datum::from(0),
        )
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Returns the function with this name and these argument types, if it exists in `schema`.
pub fn function(name: &CStr, arguments: &[pg_sys::Oid], schema: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the key of PROCNAMEARGSNSP is name, argument types and schema; the vector is a copy of the arguments.
    let oid = unsafe {
        let arguments = pg_sys::buildoidvector(arguments.as_ptr(), arguments.len() as i32);
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32,
            pg_sys::Anum_pg_proc_oid as i16,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(arguments),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::from(0),
        )
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}
