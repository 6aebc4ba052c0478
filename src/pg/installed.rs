//! Where the extension lives in this database: its schema, its tables and their owner.
//!
//! Looked up once per backend and kept until an invalidation says otherwise, so that a hit costs no catalog access.
//! Every way to change the answer (CREATE or DROP EXTENSION, their rollback, ALTER TABLE … OWNER or RENAME) sends a
//! relcache invalidation for one of the four tables, to other backends at commit and to this one at once; nothing
//! but such a message empties the cache. "Not installed" is never kept: there is no table whose message could end it.

use std::{cell::Cell, ffi::CStr};

use pgrx::pg_sys;

use crate::pg::{process_local::Local, text};

const EXTENSION: &CStr = c"pg_presence";

/// What the catalogs say about the extension in the current database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The row of `pg_extension`.
    pub extension: pg_sys::Oid,
    /// The schema that holds everything below.
    pub schema: pg_sys::Oid,
    /// Table `user_sessions`.
    pub sessions: pg_sys::Oid,
    /// Table `user_presence`.
    pub presence: pg_sys::Oid,
    /// Table `presence_changes`.
    pub changes: pg_sys::Oid,
    /// Table `_feed_state`.
    pub state: pg_sys::Oid,
    /// The role that owns `user_sessions`.
    pub owner: pg_sys::Oid,
    /// Function `_service_marker()`, whose EXECUTE privilege makes a service.
    pub marker: pg_sys::Oid,
}

static CACHE: Local<Cell<Option<Installed>>> = Local::new(Cell::new(None));
/// Counts invalidations, so that a look-up overtaken by one is not kept.
static GENERATION: Local<Cell<u64>> = Local::new(Cell::new(0));
static LISTENING: Local<Cell<bool>> = Local::new(Cell::new(false));

/// The extension in this database, or `None` where it is not installed. Needs a transaction unless cached.
#[inline]
pub fn try_get() -> Option<Installed> {
    match CACHE.get() {
        Some(found) => Some(found),
        None => look_up_and_keep(),
    }
}

/// The extension in this database; 55000 where it is not installed, or not what this library needs.
#[inline]
pub fn get() -> Installed {
    try_get().unwrap_or_else(|| missing())
}

#[cold]
fn missing() -> ! {
    match extension_row() {
        Some(_) => crate::pg::errors::damaged_install(),
        None => crate::pg::errors::not_installed(),
    }
}

/// The name of the extension's schema, quoted where SQL needs it. It can be put into a statement whatever the encoding
/// of the database is.
pub fn schema_name() -> String {
    let schema = get().schema;
    // SAFETY: both functions take and return palloc'd C strings that live in the current memory context.
    let (name, quoted) = unsafe {
        let name = pg_sys::get_namespace_name(schema);
        if name.is_null() {
            crate::pg::errors::not_installed();
        }
        let quoted = pg_sys::quote_identifier(name);
        (CStr::from_ptr(name), CStr::from_ptr(quoted))
    };
    let (name, quoted) = (text::decode(name.to_bytes()), text::decode(quoted.to_bytes()));
    if text::encode(quoted) == quoted.as_bytes() {
        quoted.to_owned()
    } else {
        escaped(name)
    }
}

/// A name of SQL in ASCII.
fn escaped(name: &str) -> String {
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
fn look_up_and_keep() -> Option<Installed> {
    listen();
    let before = GENERATION.get();
    let found = look_up();
    if GENERATION.get() == before {
        CACHE.set(found);
    }
    found
}

/// Registers for relcache invalidations, once per backend (PostgreSQL keeps such registrations for good).
fn listen() {
    if !LISTENING.replace(true) {
        // SAFETY: the callback only writes to cells and never raises.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(on_relcache), pg_sys::Datum::from(0)) };
    }
}

unsafe extern "C-unwind" fn on_relcache(_arg: pg_sys::Datum, relid: pg_sys::Oid) {
    GENERATION.set(GENERATION.get().wrapping_add(1));
    if let Some(kept) = CACHE.get()
        && (relid == pg_sys::InvalidOid || [kept.sessions, kept.presence, kept.changes, kept.state].contains(&relid))
    {
        CACHE.set(None);
    }
}

fn look_up() -> Option<Installed> {
    let (extension, schema) = extension_row()?;
    let relation = |name: &CStr| {
        // SAFETY: the name is a valid C string; an unknown one yields InvalidOid.
        let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
        (oid != pg_sys::InvalidOid).then_some(oid)
    };
    let sessions = relation(c"user_sessions")?;
    Some(Installed {
        extension,
        schema,
        sessions,
        presence: relation(c"user_presence")?,
        changes: relation(c"presence_changes")?,
        state: relation(c"_feed_state")?,
        owner: owner_of(sessions)?,
        marker: function(c"_service_marker", &[], schema)?,
    })
}

/// OID and schema of the extension. pg_extension has no syscache of its own before PostgreSQL 18, hence the scan.
fn extension_row() -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    // SAFETY: an index scan of a catalog under its own lock, as get_extension_oid does; the key outlives the scan, and
    // the row is copied out before the scan ends.
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
    // SAFETY: the tuple stays pinned until ReleaseSysCache, and is read only before.
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

/// A function of this schema, by name and argument types.
pub fn function(name: &CStr, arguments: &[pg_sys::Oid], schema: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the key of PROCNAMEARGSNSP is name, argument types, schema; the vector is a copy of the arguments.
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
