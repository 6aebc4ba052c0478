//! Text between PostgreSQL, where it is in the encoding of the database, and Rust, where it is UTF-8.
//!
//! Nothing is converted or copied where the database is UTF-8, nor where a text is ASCII, which is the same in every
//! encoding that a database can have. Elsewhere PostgreSQL converts, into memory of the current context. SQL_ASCII is
//! no encoding but any bytes: there a text is one if it is UTF-8.

use std::{
    ffi::{CStr, c_char},
    ops::Deref,
    panic::AssertUnwindSafe,
};

use pgrx::{
    FromDatum, IntoDatum, PgSqlErrorCode, PgTryBuilder,
    callconv::{Arg, ArgAbi},
    pg_sys::{self, Datum, panic::CaughtError},
    pgrx_resolved_type,
    pgrx_sql_entity_graph::metadata::{
        ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
    },
    varlena,
};

use crate::pg::compat;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;

/// Whether PostgreSQL and Rust have the same bytes for every text.
#[inline]
pub fn is_utf8() -> bool {
    compat::database_encoding() == UTF8
}

/// A `text` argument of a function, as UTF-8. Errors as [`decode`].
#[derive(Clone, Copy)]
pub struct Text<'a>(&'a str);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.0
    }
}

impl FromDatum for Text<'_> {
    #[inline]
    unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        // SAFETY: the caller hands us a text, which stays where it is for the call.
        (!is_null).then(|| Text(decode(unsafe { bytes(datum) })))
    }
}

// SAFETY: reads the datum as the text that ARGUMENT_SQL declares.
unsafe impl<'fcx> ArgAbi<'fcx> for Text<'fcx> {
    #[inline]
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        let index = arg.index();
        // SAFETY: the caller's; NULL reaches us only as Option, which asks before.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_else(|| panic!("argument {index} must not be null"))
    }
}

// SAFETY: as above.
unsafe impl SqlTranslatable for Text<'_> {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Text<'_>);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::As("TEXT"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Err(ReturnsError::Datum);
}

/// A text as a table keeps it, on its way out again: never read, so that it may be anything.
#[derive(Clone, Debug)]
pub struct Stored(Box<[u8]>);

impl Stored {
    /// Copies the bytes of a text of the database.
    pub fn copy(bytes: &[u8]) -> Stored {
        Stored(bytes.into())
    }

    /// A text as a table keeps it. Errors as [`encode`].
    pub fn encode(text: &str) -> Stored {
        Stored::copy(encode(text))
    }

    pub fn datum(&self) -> Option<Datum> {
        // A bytea and a text are made alike.
        (&*self.0).into_datum()
    }
}

impl From<i64> for Stored {
    fn from(integer: i64) -> Stored {
        Stored::copy(integer.to_string().as_bytes())
    }
}

/// What a text's datum holds, in the encoding of the database.
///
/// # Safety
/// `datum` is a text that is not NULL and stays as it is for `'a`, as does the current memory context, where it is
/// uncompressed if it has to be.
#[inline]
pub unsafe fn bytes<'a>(datum: Datum) -> &'a [u8] {
    let mut text = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: as the caller promises.
    unsafe {
        let is_plain = varlena::varatt_is_4b_u(text) || varlena::varatt_is_1b(text) && !varlena::varatt_is_1b_e(text);
        if !is_plain {
            text = pg_sys::pg_detoast_datum_packed(text);
        }
        varlena::varlena_to_byte_slice(text)
    }
}

/// A text of the database as UTF-8. Errors, PostgreSQL's own: 22021 where it is none in SQL_ASCII, 22P05 where UTF-8 has
/// no such character.
#[inline]
pub fn decode(bytes: &[u8]) -> &str {
    if is_utf8() || bytes.is_ascii() {
        // SAFETY: PostgreSQL lets only UTF-8 into a database of that encoding; ASCII is UTF-8.
        unsafe { str::from_utf8_unchecked(bytes) }
    } else {
        decode_slowly(bytes)
    }
}

#[cold]
fn decode_slowly(bytes: &[u8]) -> &str {
    // SAFETY: the bytes are a text of this database. PostgreSQL converts them to UTF-8, or checks that they are.
    unsafe { str::from_utf8_unchecked(convert(bytes, pg_sys::pg_server_to_any)) }
}

/// As [`decode`], but gives nothing where that raises an error.
pub fn try_decode(bytes: &[u8]) -> Option<&str> {
    if is_utf8() || bytes.is_ascii() {
        Some(decode(bytes))
    } else if compat::database_encoding() == SQL_ASCII {
        str::from_utf8(bytes).ok()
    } else {
        if_convertible(|| decode_slowly(bytes))
    }
}

/// A text in the encoding of the database. Errors with 22P05, PostgreSQL's own, where that has no such character.
pub fn encode(text: &str) -> &[u8] {
    if is_utf8() || text.is_ascii() {
        text.as_bytes()
    } else {
        // SAFETY: the bytes are UTF-8.
        unsafe { convert(text.as_bytes(), pg_sys::pg_any_to_server) }
    }
}

/// A `text` of the database. Errors as [`encode`].
pub fn datum(text: &str) -> Option<Datum> {
    encode(text).into_datum()
}

/// Between UTF-8 and the encoding of the database.
///
/// # Safety
/// `function` is one of PostgreSQL's two, and `bytes` are text in the encoding that it converts from.
unsafe fn convert(bytes: &[u8], function: unsafe fn(*const c_char, i32, i32) -> *mut c_char) -> &[u8] {
    // A text is at most 1 GB.
    let length = bytes.len() as i32;
    // SAFETY: as the caller promises. The answer is the same pointer where nothing had to be done, else a C string in
    // the current memory context, in which callers work with what they read.
    unsafe {
        let converted = function(bytes.as_ptr().cast(), length, UTF8);
        if converted.cast_const().cast() == bytes.as_ptr() {
            bytes
        } else {
            CStr::from_ptr(converted).to_bytes()
        }
    }
}

/// Runs a conversion, and gives nothing where PostgreSQL finds that there is none.
///
/// Its error can be dropped without ending a (sub)transaction: a conversion holds nothing and changes nothing.
fn if_convertible<R>(f: impl FnOnce() -> R) -> Option<R> {
    PgTryBuilder::new(AssertUnwindSafe(|| Some(f())))
        .catch_others(|error| {
            let code = match &error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report.sql_error_code(),
                CaughtError::RustPanic { .. } => error.rethrow(),
            };
            match code {
                PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE
                | PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER
                // Not every encoding has a conversion to UTF-8.
                | PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION => None,
                _ => error.rethrow(),
            }
        })
        .execute()
}
