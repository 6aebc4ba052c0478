//! The arguments of a statement, and the values of a row to return.

use pgrx::{
    IntoDatum,
    datum::TimestampWithTimeZone,
    pg_sys::{self, Datum},
    varlena,
};
use uuid::Uuid;

use crate::{
    pg::text::{self, EncodedText},
    rules::time::Micros,
};

/// A value, or NULL, of a type that our tables and functions have.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i32),
    Bigint(i64),
    Double(f64),
    Time(Micros),
    Uuid(&'a Uuid),
    /// Converting it errors with 22P05 where the database's encoding lacks one of its characters.
    Text(&'a str),
    EncodedText(&'a EncodedText),
    /// uuid[]
    Uuids(&'a [Uuid]),
    /// An OID, or the label of an enum, which is one.
    Oid(pg_sys::Oid),
    /// A datum from PostgreSQL or from [`array()`].
    Datum(Datum),
}

impl Value<'_> {
    /// Returns the datum, or `None` for NULL. It may point into what the value borrows, and is valid as long as that.
    pub fn datum(self) -> Option<Datum> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(value) => Datum::from(value),
            Value::Int(value) => Datum::from(value),
            Value::Bigint(value) | Value::Time(value) => Datum::from(value),
            Value::Double(value) => value.into_datum()?,
            Value::Uuid(value) => Datum::from(value.as_bytes().as_ptr()),
            Value::Text(value) => return text::datum(value),
            Value::EncodedText(value) => return value.datum(),
            Value::Uuids(values) => uuid_array(values),
            Value::Oid(oid) => Datum::from(oid),
            Value::Datum(datum) => datum,
        })
    }
}

impl<'a, T> From<Option<T>> for Value<'a>
where
    T: Into<Value<'a>>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

impl<'a> From<&'a Uuid> for Value<'a> {
    fn from(value: &'a Uuid) -> Self {
        Value::Uuid(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Value::Text(value)
    }
}

impl<'a> From<&'a EncodedText> for Value<'a> {
    fn from(value: &'a EncodedText) -> Self {
        Value::EncodedText(value)
    }
}

/// Returns an array, in the current memory context.
pub fn array<T>(items: impl IntoIterator<Item = T>) -> Value<'static>
where
    Vec<T>: IntoDatum,
{
    let items: Vec<T> = items.into_iter().collect();
    items.into_datum().map_or(Value::Null, Value::Datum)
}

/// Returns a `text[]`, in the current memory context. Errors: 22P05 where the database's encoding lacks a character.
pub fn texts<'t>(items: impl IntoIterator<Item = Option<&'t str>>) -> Value<'static> {
    varlena_array(
        pg_sys::TEXTOID,
        items.into_iter().map(|item| item.and_then(text::datum)),
    )
}

/// Returns a `text[]` of texts in the encoding of the database, in the current memory context.
pub fn encoded_texts<'t>(items: impl IntoIterator<Item = Option<&'t EncodedText>>) -> Value<'static> {
    varlena_array(
        pg_sys::TEXTOID,
        items.into_iter().map(|item| item.and_then(EncodedText::datum)),
    )
}

/// Returns a `jsonb[]` of values that are jsonb, in the current memory context.
pub fn jsonbs(items: impl IntoIterator<Item = Option<Datum>>) -> Value<'static> {
    varlena_array(pg_sys::JSONBOID, items)
}

/// Returns an array of varlenas of this type, which are aligned as integers are.
fn varlena_array(element: pg_sys::Oid, items: impl IntoIterator<Item = Option<Datum>>) -> Value<'static> {
    let (mut values, mut nulls): (Vec<Datum>, Vec<bool>) = items
        .into_iter()
        .map(|item| (item.unwrap_or(Datum::null()), item.is_none()))
        .unzip();
    let (mut length, mut lower_bound) = (values.len() as i32, 1);
    // SAFETY: as many values as nulls, each a varlena of that type where it is not NULL; all is copied.
    let array = unsafe {
        pg_sys::construct_md_array(
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            &mut length,
            &mut lower_bound,
            element,
            -1,
            false,
            pg_sys::TYPALIGN_INT as _,
        )
    };
    Value::Datum(Datum::from(array))
}

/// Returns a time as an element of an [`array()`]. A time that PostgreSQL cannot store becomes infinity.
pub fn timestamptz(at: Micros) -> TimestampWithTimeZone {
    TimestampWithTimeZone::try_from(at).unwrap_or_else(|_| TimestampWithTimeZone::positive_infinity())
}

/// Returns a `uuid[]` of one dimension without NULLs, in the current memory context.
fn uuid_array(values: &[Uuid]) -> Datum {
    const HEADER: usize = size_of::<pg_sys::ArrayType>();
    let dimensions = usize::from(!values.is_empty());
    let size = HEADER + dimensions * (2 * size_of::<i32>()) + size_of_val(values);
    // SAFETY: `size` bytes are allocated (beyond 1 GB, an error is raised), and exactly as many are written: the
    // header, one dimension and its lower bound, and the elements. Header and bounds take 24 bytes, so there is no
    // padding before the elements, and a uuid needs none after it.
    unsafe {
        let array = pg_sys::palloc0(size).cast::<pg_sys::ArrayType>();
        varlena::set_varsize_4b(array.cast(), size as i32);
        (*array).ndim = dimensions as i32;
        (*array).elemtype = pg_sys::UUIDOID;
        if dimensions == 1 {
            let bounds = array.add(1).cast::<i32>();
            *bounds = values.len() as i32;
            *bounds.add(1) = 1;
            bounds
                .add(2)
                .cast::<Uuid>()
                .copy_from_nonoverlapping(values.as_ptr(), values.len());
        }
        Datum::from(array)
    }
}
