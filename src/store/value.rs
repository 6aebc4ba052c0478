//! Values on their way into a statement or a row.

use pgrx::{
    IntoDatum,
    datum::TimestampWithTimeZone,
    pg_sys::{self, Datum},
    varlena,
};
use uuid::Uuid;

use crate::{
    pg::text::{self, Stored},
    rules::time::Micros,
};

/// One value, or none, of the types our tables are made of.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i32),
    Bigint(i64),
    Double(f64),
    Time(Micros),
    Uuid(&'a Uuid),
    /// Errors with 22P05 where the database's encoding lacks one of its characters.
    Text(&'a str),
    Stored(&'a Stored),
    /// uuid[]
    Uuids(&'a [Uuid]),
    /// An OID, and so the label of an enum.
    Oid(pg_sys::Oid),
    /// As PostgreSQL handed it to us, or as [`list`] made it.
    Datum(Datum),
}

impl Value<'_> {
    /// The datum, or none for NULL. It may point into what the value borrows, so it is good for as long only.
    pub fn datum(self) -> Option<Datum> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(value) => Datum::from(value),
            Value::Int(value) => Datum::from(value),
            Value::Bigint(value) | Value::Time(value) => Datum::from(value),
            Value::Double(value) => value.into_datum()?,
            Value::Uuid(value) => Datum::from(value.as_bytes().as_ptr()),
            Value::Text(value) => return text::datum(value),
            Value::Stored(value) => return value.datum(),
            Value::Uuids(values) => array(values),
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

impl<'a> From<&'a Stored> for Value<'a> {
    fn from(value: &'a Stored) -> Self {
        Value::Stored(value)
    }
}

/// An array, in the current memory context.
pub fn list<T>(items: impl IntoIterator<Item = T>) -> Value<'static>
where
    Vec<T>: IntoDatum,
{
    let items: Vec<T> = items.into_iter().collect();
    items.into_datum().map_or(Value::Null, Value::Datum)
}

/// A point in time as an item of a [`list`]; what PostgreSQL cannot store becomes infinity.
pub fn time(at: Micros) -> TimestampWithTimeZone {
    TimestampWithTimeZone::try_from(at).unwrap_or_else(|_| TimestampWithTimeZone::positive_infinity())
}

/// A `uuid[]` of one dimension without NULLs, in the current memory context.
fn array(values: &[Uuid]) -> Datum {
    const HEADER: usize = size_of::<pg_sys::ArrayType>();
    let dimensions = usize::from(!values.is_empty());
    let size = HEADER + dimensions * (2 * size_of::<i32>()) + size_of_val(values);
    // SAFETY: `size` bytes are allocated (or an error raised, beyond 1 GB), and what is written into them is the
    // header, then one dimension and its lower bound, then the elements: exactly `size` bytes. Header and bounds make
    // 24 bytes, so there is no padding before the elements, and a uuid needs none after.
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
