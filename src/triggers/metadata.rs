//! The metadata of a row: an object of at most 8 kB, as PostgreSQL keeps it in memory.

use pgrx::{IntoDatum, JsonB, pg_sys, varlena};

use super::row::TriggerRow;
use crate::pg::errors;

const LARGEST: usize = 8 * 1024;

/// What is to be stored in the place of what was given: an empty object where nothing was. Errors: 22023 for what is no
/// object, or is too large.
pub fn correct(old: Option<&TriggerRow>, new: &TriggerRow) -> Option<pg_sys::Datum> {
    let Some(given) = new.metadata() else {
        return JsonB(serde_json::json!({})).into_datum();
    };
    // An UPDATE that does not name the column carries the old value on as it lies in the table.
    let is_carried_on = old.is_some_and(|old| is_same(old.metadata(), given));
    if !is_carried_on && !is_fit(given) {
        errors::bad_metadata();
    }
    None
}

fn is_same(old: Option<pg_sys::Datum>, new: pg_sys::Datum) -> bool {
    let bytes = |datum: pg_sys::Datum| {
        let stored: *const pg_sys::varlena = datum.cast_mut_ptr();
        // SAFETY: a value of a column that is passed by reference to a varlena, whose own header says how long it is.
        unsafe { std::slice::from_raw_parts(stored.cast::<u8>(), varlena::varsize_any(stored)) }
    };
    old.is_some_and(|old| bytes(old) == bytes(new))
}

/// Whether a jsonb may be a session's metadata.
pub fn is_fit(given: pg_sys::Datum) -> bool {
    let stored: *mut pg_sys::varlena = given.cast_mut_ptr();
    // SAFETY: a jsonb that is not NULL; detoasting yields it whole with a four-byte header, itself or a copy.
    unsafe {
        let jsonb = pg_sys::pg_detoast_datum(stored).cast::<pg_sys::Jsonb>();
        (*jsonb).root.header & pg_sys::JB_FOBJECT != 0 && varlena::varsize_4b(jsonb.cast()) <= LARGEST
    }
}
