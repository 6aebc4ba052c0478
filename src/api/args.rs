//! Arguments that pgrx would copy, read where PostgreSQL keeps them.

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
    rules::time::Micros,
    triggers::metadata,
};

/// A `uuid[]` of any number of dimensions, without its NULL elements.
#[derive(Clone, Copy)]
pub struct Uuids<'a>(&'a [Uuid]);

impl<'a> Uuids<'a> {
    /// The elements that are not NULL, in order.
    pub fn ids(self) -> &'a [Uuid] {
        self.0
    }
}

impl FromDatum for Uuids<'_> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller hands us a uuid[], which stays where it is for the call. Elements that are NULL take no
        // room in it, and a uuid needs no alignment, so that the others lie side by side up to the end. uuid::Uuid is 16
        // bytes, transparently.
        unsafe {
            let array = plain(datum).cast::<pg_sys::ArrayType>();
            let dimensions = (*array).ndim as usize;
            if dimensions == 0 {
                return Some(Uuids(&[]));
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
            Some(Uuids(ids))
        }
    }
}

// SAFETY: reads the datum as the uuid[] that ARGUMENT_SQL declares.
unsafe impl<'fcx> ArgAbi<'fcx> for Uuids<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's; NULL reaches us only as Option, which asks before.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Uuids(&[]))
    }
}

// SAFETY: as above.
unsafe impl SqlTranslatable for Uuids<'_> {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Uuids<'_>);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::As("uuid[]"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Err(ReturnsError::Datum);
}

/// A `jsonb` argument, not read but for what kind of value it is and how long.
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    datum: pg_sys::Datum,
    _call: PhantomData<&'a ()>,
}

impl Metadata<'_> {
    /// The datum as it is.
    pub fn datum(self) -> pg_sys::Datum {
        self.datum
    }

    /// The datum, once it is known to be fit to be stored. Errors: 22023 otherwise.
    pub fn checked(self) -> pg_sys::Datum {
        if !metadata::is_fit(self.datum) {
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
        // SAFETY: the caller's.
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

/// The elements of an array argument, of any number of dimensions, NULLs included. Nothing is copied but the places of the
/// elements, by PostgreSQL, which refuses with 53200 what it has no memory for.
#[derive(Clone, Copy)]
pub struct ArrayArg<'a, T> {
    datums: &'a [pg_sys::Datum],
    nulls: &'a [bool],
    _element: PhantomData<T>,
}

/// The type of an element, and how an array stores it.
pub trait Element: FromDatum {
    const OID: pg_sys::Oid;
    const LENGTH: i16;
    const ALIGN: u8;
    const ARRAY: &'static str;
}

impl Element for pgrx::Uuid {
    const OID: pg_sys::Oid = pg_sys::UUIDOID;
    const LENGTH: i16 = 16;
    const ALIGN: u8 = pg_sys::TYPALIGN_CHAR;
    const ARRAY: &'static str = "uuid[]";
}

impl Element for Text<'_> {
    const OID: pg_sys::Oid = pg_sys::TEXTOID;
    const LENGTH: i16 = -1;
    const ALIGN: u8 = pg_sys::TYPALIGN_INT;
    const ARRAY: &'static str = "text[]";
}

impl Element for Metadata<'_> {
    const OID: pg_sys::Oid = pg_sys::JSONBOID;
    const LENGTH: i16 = -1;
    const ALIGN: u8 = pg_sys::TYPALIGN_INT;
    const ARRAY: &'static str = "jsonb[]";
}

impl<T: Element> ArrayArg<'_, T> {
    /// How many elements there are, with the NULLs.
    pub fn len(&self) -> usize {
        self.datums.len()
    }

    /// The element at a position below [`ArrayArg::len`]; `None` for NULL.
    pub fn get(&self, position: usize) -> Option<T> {
        // SAFETY: an element of the array, which has this type.
        unsafe { T::from_datum(self.datums[position], self.nulls[position]) }
    }
}

impl<T: Element> FromDatum for ArrayArg<'_, T> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        let (mut datums, mut nulls, mut length) = (null_mut(), null_mut(), 0);
        // SAFETY: the caller passes an array of T, which stays where it is for the call, as do the two lists, in the current
        // memory context.
        unsafe {
            pg_sys::deconstruct_array(
                plain(datum).cast(),
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
unsafe impl<'fcx, T: Element> ArgAbi<'fcx> for ArrayArg<'fcx, T> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        let index = arg.index();
        // SAFETY: the caller's.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_else(|| panic!("argument {index} must not be null"))
    }
}

// SAFETY: as above.
unsafe impl<T: Element> SqlTranslatable for ArrayArg<'_, T> {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(ArrayArg<()>);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::As(T::ARRAY));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Err(ReturnsError::Datum);
}

/// A varlena with its four-byte header, uncompressed and in line: itself, or a copy.
///
/// # Safety
/// `datum` is a varlena that is not NULL.
unsafe fn plain(datum: pg_sys::Datum) -> *mut pg_sys::varlena {
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

/// An interval's length in microseconds, a month taken as 30 days, or none where it is not positive or above `most`.
pub fn length(interval: Interval, most: Micros) -> Option<Micros> {
    Micros::try_from(interval.as_micros())
        .ok()
        .filter(|&length| 0 < length && length <= most)
}
