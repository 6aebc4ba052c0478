//! Argument types that read a value in place, where pgrx would copy it.

use std::{marker::PhantomData, ptr::null_mut};

use pgrx::{
    FromDatum,
    callconv::{Arg, ArgAbi},
    datum::Interval,
    pg_sys, pgrx_resolved_type,
    pgrx_sql_entity_graph::metadata::{
        ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
    },
    varlena,
};
use uuid::Uuid;

use crate::{
    pg::{errors, text::Text},
    rules::time::{Micros, USECS_PER_SEC},
    triggers::metadata,
};

/// The longest grace.
const MAX_GRACE: Micros = 24 * 60 * 60 * USECS_PER_SEC;

/// A `uuid[]` argument of any number of dimensions, without its NULL elements.
#[derive(Clone, Copy)]
pub struct UuidArray<'a>(&'a [Uuid]);

impl<'a> UuidArray<'a> {
    /// Returns the elements that are not NULL, in order.
    pub fn ids(self) -> &'a [Uuid] {
        self.0
    }
}

impl FromDatum for UuidArray<'_> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller passes a uuid[], which is valid for the call. NULL elements take no space in it and a uuid
        // needs no alignment, so the other elements are contiguous up to the end. uuid::Uuid is a transparent 16 bytes.
        unsafe {
            let array = detoast(datum).cast::<pg_sys::ArrayType>();
            let dimensions = (*array).ndim as usize;
            if dimensions == 0 {
                return Some(UuidArray(&[]));
            }
            let bounds = array.add(1).cast::<i32>();
            let elements: usize = (0..dimensions).map(|n| *bounds.add(n) as usize).product();
            let start = match (*array).dataoffset {
                0 => (size_of::<pg_sys::ArrayType>() + dimensions * 2 * size_of::<i32>()).next_multiple_of(8),
                offset => offset as usize,
            };
            let bytes = varlena::varsize_4b(array.cast()).saturating_sub(start);
            let present = usize::min(bytes / size_of::<Uuid>(), elements);
            let ids = std::slice::from_raw_parts(array.byte_add(start).cast::<Uuid>(), present);
            Some(UuidArray(ids))
        }
    }
}

// SAFETY: reads the datum as the uuid[] that ARGUMENT_SQL declares.
unsafe impl<'fcx> ArgAbi<'fcx> for UuidArray<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as the caller promises; for an Option, pgrx checks for NULL first.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(UuidArray(&[]))
    }
}

// SAFETY: as above.
unsafe impl SqlTranslatable for UuidArray<'_> {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(UuidArray<'_>);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::As("uuid[]"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Err(ReturnsError::Datum);
}

/// A `jsonb` argument that is passed on as it is, to be stored as a session's metadata.
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    datum: pg_sys::Datum,
    _call: PhantomData<&'a ()>,
}

impl Metadata<'_> {
    /// Returns the datum, unchecked.
    pub fn datum(self) -> pg_sys::Datum {
        self.datum
    }

    /// Returns the datum. Errors: 22023 where it is not an object, or is too large.
    pub fn validated(self) -> pg_sys::Datum {
        if !metadata::is_valid(self.datum) {
            errors::bad_metadata();
        }
        self.datum
    }
}

impl FromDatum for Metadata<'_> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then_some(Metadata {
            datum,
            _call: PhantomData,
        })
    }
}

// SAFETY: reads the datum as the jsonb that ARGUMENT_SQL declares.
unsafe impl<'fcx> ArgAbi<'fcx> for Metadata<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        let index = arg.index();
        // SAFETY: as the caller promises.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_else(|| panic!("argument {index} must not be null"))
    }
}

// SAFETY: as above.
unsafe impl SqlTranslatable for Metadata<'_> {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Metadata<'_>);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::As("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Err(ReturnsError::Datum);
}

/// An array argument of any number of dimensions, NULL elements included. Only the list of elements is allocated, by
/// PostgreSQL, which raises 53200 where there is no memory for it.
#[derive(Clone, Copy)]
pub struct ArrayArg<'a, T> {
    datums: &'a [pg_sys::Datum],
    nulls: &'a [bool],
    _element: PhantomData<T>,
}

/// A type of array elements, and how an array stores them.
pub trait ArrayElement: FromDatum {
    const OID: pg_sys::Oid;
    const LENGTH: i16;
    const ALIGN: u8;
    const ARRAY: &'static str;
}

impl ArrayElement for pgrx::Uuid {
    const OID: pg_sys::Oid = pg_sys::UUIDOID;
    const LENGTH: i16 = 16;
    const ALIGN: u8 = pg_sys::TYPALIGN_CHAR;
    const ARRAY: &'static str = "uuid[]";
}

impl ArrayElement for Text<'_> {
    const OID: pg_sys::Oid = pg_sys::TEXTOID;
    const LENGTH: i16 = -1;
    const ALIGN: u8 = pg_sys::TYPALIGN_INT;
    const ARRAY: &'static str = "text[]";
}

impl ArrayElement for Metadata<'_> {
    const OID: pg_sys::Oid = pg_sys::JSONBOID;
    const LENGTH: i16 = -1;
    const ALIGN: u8 = pg_sys::TYPALIGN_INT;
    const ARRAY: &'static str = "jsonb[]";
}

impl<T: ArrayElement> ArrayArg<'_, T> {
    /// Returns the number of elements, NULLs included.
    pub fn len(&self) -> usize {
        self.datums.len()
    }

    /// Returns the element at a position below [`ArrayArg::len`]; `None` for NULL.
    pub fn get(&self, position: usize) -> Option<T> {
        // SAFETY: an element of the array, which has this type.
        unsafe { T::from_datum(self.datums[position], self.nulls[position]) }
    }
}

impl<T: ArrayElement> FromDatum for ArrayArg<'_, T> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        let (mut datums, mut nulls, mut length) = (null_mut(), null_mut(), 0);
        // SAFETY: the caller passes an array of T, which is valid for the call, as are the two lists, in the current
        // memory context.
        unsafe {
            pg_sys::deconstruct_array(
                detoast(datum).cast(),
                T::OID,
                T::LENGTH.into(),
                false,
                T::ALIGN as _,
                &mut datums,
                &mut nulls,
                &mut length,
            );
            Some(match length {
                0 => ArrayArg {
                    datums: &[],
                    nulls: &[],
                    _element: PhantomData,
                },
                length => ArrayArg {
                    datums: std::slice::from_raw_parts(datums, length as usize),
                    nulls: std::slice::from_raw_parts(nulls, length as usize),
                    _element: PhantomData,
                },
            })
        }
    }
}

// SAFETY: reads the datum as the array that ARGUMENT_SQL declares.
unsafe impl<'fcx, T: ArrayElement> ArgAbi<'fcx> for ArrayArg<'fcx, T> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        let index = arg.index();
        // SAFETY: as the caller promises.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_else(|| panic!("argument {index} must not be null"))
    }
}

// SAFETY: as above.
unsafe impl<T: ArrayElement> SqlTranslatable for ArrayArg<'_, T> {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(ArrayArg<()>);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::As(T::ARRAY));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Err(ReturnsError::Datum);
}

/// Returns a varlena uncompressed and in line, with a four-byte header: itself if it is so already, else a copy.
///
/// # Safety
/// `datum` is a varlena that is not NULL.
unsafe fn detoast(datum: pg_sys::Datum) -> *mut pg_sys::varlena {
    let value = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: as the caller promises.
    unsafe {
        if varlena::varatt_is_4b_u(value) {
            value
        } else {
            pg_sys::pg_detoast_datum(value)
        }
    }
}

/// Returns the length of an interval in microseconds, with a month of 30 days; `None` where it is not positive or
/// exceeds `max`.
pub fn positive_micros(interval: Interval, max: Micros) -> Option<Micros> {
    Micros::try_from(interval.as_micros())
        .ok()
        .filter(|&length| 0 < length && length <= max)
}

/// Returns a grace in microseconds. Errors: 22023 where it is NULL, not positive or longer than a day.
pub fn grace_micros(grace: Option<Interval>) -> Micros {
    match grace.and_then(|grace| positive_micros(grace, MAX_GRACE)) {
        Some(grace) => grace,
        None => errors::bad_value(
            "grace must be a positive interval of at most one day",
            "",
            "Omit grace for the default of the function.",
        ),
    }
}

/// Returns a uuid of pgrx as one of the crate `uuid`.
#[inline(always)]
pub fn to_uuid(id: pgrx::Uuid) -> Uuid {
    Uuid::from_bytes(*id)
}
