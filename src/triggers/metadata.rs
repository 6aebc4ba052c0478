//! The metadata of a row: a JSON object of at most 8 kB, measured uncompressed, as PostgreSQL has it in memory.

use pgrx::{IntoDatum, JsonB, pg_sys, varlena};

use super::row::TriggerRow;
use crate::pg::errors;

/// The size limit, in bytes of the uncompressed jsonb with its header.
const MAX_BYTES: usize = 8 * 1024;

/// Returns the value that replaces the submitted one: an empty object in place of NULL, otherwise none. Errors: 22023
/// where the value is not an object, or is too large.
pub fn correct(old: Option<&TriggerRow>, new: &TriggerRow) -> Option<pg_sys::Datum> {
    let Some(submitted) = new.metadata() else {
        return JsonB(serde_json::json!({})).into_datum();
    };
    // An UPDATE that does not set the column keeps the value as it is stored, maybe out of line: it need not be
    // fetched.
    let is_kept = old.is_some_and(|old| is_same_datum(old.metadata(), submitted));
    if !is_kept && !is_valid(submitted) {
        errors::bad_metadata();
    }
    None
}

/// Returns whether two values are stored alike, byte for byte.
fn is_same_datum(old: Option<pg_sys::Datum>, new: pg_sys::Datum) -> bool {
    let bytes = |datum: pg_sys::Datum| {
        let stored: *const pg_sys::varlena = datum.cast_mut_ptr();
        // SAFETY: a varlena, whose header holds its length.
        unsafe { std::slice::from_raw_parts(stored.cast::<u8>(), varlena::varsize_any(stored)) }
    };
    old.is_some_and(|old| bytes(old) == bytes(new))
}

/// Returns whether a jsonb can be a session's metadata: an object that is not too large.
pub fn is_valid(metadata: pg_sys::Datum) -> bool {
    let stored: *mut pg_sys::varlena = metadata.cast_mut_ptr();
    // SAFETY: a jsonb that is not NULL; detoasting returns it uncompressed with a four-byte header, itself or a copy.
    unsafe {
        let jsonb = pg_sys::pg_detoast_datum(stored).cast::<pg_sys::Jsonb>();
        (*jsonb).root.header & pg_sys::JB_FOBJECT != 0 && varlena::varsize_4b(jsonb.cast()) <= MAX_BYTES
    }
}
