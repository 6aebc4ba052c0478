//! Results of type `presence_status`: the OIDs of its labels, looked up once per backend.

use std::{
    cell::Cell,
    ffi::{CStr, CString},
};

use pgrx::{
    callconv::{BoxRet, FcInfo},
    datum::Datum,
    pg_sys, pgrx_resolved_type,
    pgrx_sql_entity_graph::metadata::{
        ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
    },
};

use crate::{
    pg::{errors, installed},
    rules::status::Status,
};

/// The OIDs of the labels.
#[derive(Clone, Copy)]
struct LabelCache {
    /// The table of the extension that they belong to: another CREATE EXTENSION makes another type.
    sessions: pg_sys::Oid,
    active: pg_sys::Oid,
    idle: pg_sys::Oid,
    busy: pg_sys::Oid,
    inactive: pg_sys::Oid,
}

thread_local! {
    static CACHE: Cell<Option<LabelCache>> = const { Cell::new(None) };
}

/// Returns the OID of the label of a status. Errors: 55000 where the extension is not installed, or its type was
/// changed.
pub fn label_oid(status: Status) -> pg_sys::Oid {
    let sessions = installed::get().sessions;
    let labels = match CACHE.get() {
        Some(labels) if labels.sessions == sessions => labels,
        _ => look_up(sessions),
    };
    match status {
        Status::Active => labels.active,
        Status::Idle => labels.idle,
        Status::Busy => labels.busy,
        Status::Inactive => labels.inactive,
    }
}

#[cold]
fn look_up(sessions: pg_sys::Oid) -> LabelCache {
    let enum_type = syscache_oid(
        pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
        pg_sys::Anum_pg_type_oid as i16,
        pg_sys::Datum::from(c"presence_status".as_ptr()),
        pg_sys::Datum::from(installed::get().schema),
    );
    let label = |name: &CStr| {
        syscache_oid(
            pg_sys::SysCacheIdentifier::ENUMTYPOIDNAME as i32,
            pg_sys::Anum_pg_enum_oid as i16,
            pg_sys::Datum::from(enum_type),
            pg_sys::Datum::from(name.as_ptr()),
        )
    };
    let name = |status: Status| CString::new(status.as_str()).unwrap_or_default();
    let labels = LabelCache {
        sessions,
        active: label(&name(Status::Active)),
        idle: label(&name(Status::Idle)),
        busy: label(&name(Status::Busy)),
        inactive: label(&name(Status::Inactive)),
    };
    CACHE.set(Some(labels));
    labels
}

/// Returns the OID in a row of a catalog cache. Errors: 55000 where there is no such row.
fn syscache_oid(cache: i32, column: i16, key1: pg_sys::Datum, key2: pg_sys::Datum) -> pg_sys::Oid {
    let none = pg_sys::Datum::null();
    // SAFETY: both caches have two keys, of the types that are passed; no row stays pinned.
    let found = unsafe { pg_sys::GetSysCacheOid(cache, column, key1, key2, none, none) };
    if found == pg_sys::InvalidOid {
        errors::damaged_install();
    }
    found
}

/// A status, returned as `presence_status`.
pub struct StatusLabel(pub Status);

// SAFETY: the datum of an enum is the OID of its row in pg_enum.
unsafe impl BoxRet for StatusLabel {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: the function returns presence_status.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(label_oid(self.0))) }
    }
}

// SAFETY: as above.
unsafe impl SqlTranslatable for StatusLabel {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(StatusLabel);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
        Err(ArgumentError::NotValidAsArgument("presence_status"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::As("@extschema@.presence_status")));
}
