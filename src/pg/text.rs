//! Conversion of text between the encoding of the database and UTF-8.
//!
//! Nothing is converted or copied if the database is UTF-8, or if the text is ASCII, which is the same in every server
//! encoding. Otherwise PostgreSQL converts the text into memory of the current context. SQL_ASCII means arbitrary
//! bytes, of which only those that are valid UTF-8 are accepted as text.

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

use crate::pg::{compat, memory};

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;

/// Returns whether the encoding of the database is UTF-8.
#[inline]
pub fn is_utf8() -> bool {
    compat::database_encoding() == UTF8
}

/// A `text` argument of an SQL function, as UTF-8. Errors like [`decode`].
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
        // SAFETY: the datum is a text that stays valid for the call.
        (!is_null).then(|| Text(decode(unsafe { bytes(datum) })))
    }
}

// SAFETY: reads the datum as the text that ARGUMENT_SQL declares.
unsafe impl<'fcx> ArgAbi<'fcx> for Text<'fcx> {
    #[inline]
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        let index = arg.index();
        // SAFETY: as the caller promises. An Option checks for NULL before this is called.
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

/// A `text` argument of an SQL function that may be any bytes: as UTF-8, or `None` where it cannot be converted.
#[derive(Clone, Copy)]
pub struct AnyText<'a>(Option<&'a str>);

impl<'a> AnyText<'a> {
    /// Returns the text, if it can be converted to UTF-8.
    #[inline]
    pub fn text(self) -> Option<&'a str> {
        self.0
    }
}

impl FromDatum for AnyText<'_> {
    #[inline]
    unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        // SAFETY: the datum is a text that stays valid for the call.
        (!is_null).then(|| AnyText(try_decode(unsafe { bytes(datum) })))
    }
}

// SAFETY: reads the datum as the text that ARGUMENT_SQL declares.
unsafe impl<'fcx> ArgAbi<'fcx> for AnyText<'fcx> {
    #[inline]
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as the caller promises. An Option checks for NULL before this is called.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(AnyText(None))
    }
}

// SAFETY: as above.
unsafe impl SqlTranslatable for AnyText<'_> {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(AnyText<'_>);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::As("TEXT"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Err(ReturnsError::Datum);
}

/// A text in the encoding of the database that is passed through without being decoded, so it may contain any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedText(Box<[u8]>);

impl EncodedText {
    /// Copies the bytes of a text in the encoding of the database. Errors: 53200 where there is no memory for them.
    pub fn copy(bytes: &[u8]) -> EncodedText {
        EncodedText(memory::copy(bytes).into_boxed_slice())
    }

    /// Converts from UTF-8. Errors like [`encode`].
    pub fn encode(text: &str) -> EncodedText {
        EncodedText::copy(encode(text))
    }

    /// Returns the bytes, in the encoding of the database.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the text as a datum in the current memory context.
    pub fn datum(&self) -> Option<Datum> {
        // The datum of a bytea has the same layout as that of a text.
        (&*self.0).into_datum()
    }
}

impl From<i64> for EncodedText {
    fn from(integer: i64) -> EncodedText {
        EncodedText::copy(integer.to_string().as_bytes())
    }
}

/// Returns the bytes of a text, in the encoding of the database.
///
/// # Safety
/// `datum` is a text that is not NULL. It and the current memory context, into which it is detoasted if necessary, stay
/// unchanged for `'a`.
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

/// Converts a text from the encoding of the database to UTF-8. Errors with 22021 if the bytes of an SQL_ASCII database
/// are not valid UTF-8, with 22P05 if UTF-8 has no such character; both are PostgreSQL's own errors.
#[inline]
pub fn decode(bytes: &[u8]) -> &str {
    if is_utf8() || bytes.is_ascii() {
        // SAFETY: a UTF-8 database contains only valid UTF-8, and ASCII is valid UTF-8.
        unsafe { str::from_utf8_unchecked(bytes) }
    } else {
        decode_slowly(bytes)
    }
}

#[cold]
fn decode_slowly(bytes: &[u8]) -> &str {
    // SAFETY: the bytes are a text of this database, which PostgreSQL converts to UTF-8 or verifies.
    unsafe { str::from_utf8_unchecked(convert(bytes, pg_sys::pg_server_to_any)) }
}

/// Like [`decode`], but returns `None` instead of raising an error.
pub fn try_decode(bytes: &[u8]) -> Option<&str> {
    if is_utf8() || bytes.is_ascii() {
        Some(decode(bytes))
    } else if compat::database_encoding() == SQL_ASCII {
        str::from_utf8(bytes).ok()
    } else {
        if_convertible(|| decode_slowly(bytes))
    }
}

/// Converts a text from UTF-8 to the encoding of the database. Errors with 22P05, PostgreSQL's own error, if that
/// encoding has no such character.
pub fn encode(text: &str) -> &[u8] {
    if is_utf8() || text.is_ascii() {
        text.as_bytes()
    } else {
        // SAFETY: the bytes are UTF-8.
        unsafe { convert(text.as_bytes(), pg_sys::pg_any_to_server) }
    }
}

/// Returns a `text` datum in the encoding of the database. Errors like [`encode`].
pub fn datum(text: &str) -> Option<Datum> {
    encode(text).into_datum()
}

/// Converts between UTF-8 and the encoding of the database.
///
/// # Safety
/// `function` is `pg_server_to_any` or `pg_any_to_server`, and `bytes` are text in the encoding that it converts from.
unsafe fn convert(bytes: &[u8], function: unsafe fn(*const c_char, i32, i32) -> *mut c_char) -> &[u8] {
    // A text is at most 1 GB.
    let length = bytes.len() as i32;
    // SAFETY: as the caller promises. The result is the same pointer if no conversion is needed, else a C string in the
    // current memory context, which outlives the caller's use of `bytes`.
    unsafe {
        let converted = function(bytes.as_ptr().cast(), length, UTF8);
        if converted.cast_const().cast() == bytes.as_ptr() {
            bytes
        } else {
            CStr::from_ptr(converted).to_bytes()
        }
    }
}

/// Runs a conversion and returns `None` if PostgreSQL reports that the text cannot be converted.
///
/// The error can be discarded without aborting a (sub)transaction: a conversion holds no resources and has no effects.
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
