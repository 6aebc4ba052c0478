//! Arguments that pgrx would copy, read where PostgreSQL keeps them.

use crate::core::time::Micros;
use crate::{errors, guard};
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::Interval;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, pg_sys, pgrx_resolved_type, varlena};
use std::marker::PhantomData;
use uuid::Uuid;

/// A `uuid[]` of any number of dimensions, without its NULL elements.
#[derive(Clone, Copy)]
pub struct Uuids<'a> {
    ids: &'a [Uuid],
    /// How many elements it has with the NULLs.
    elements: usize,
}

impl<'a> Uuids<'a> {
    /// The elements that are not NULL, in order.
    pub fn ids(self) -> &'a [Uuid] {
        self.ids
    }

    pub fn has_nulls(self) -> bool {
        self.elements != self.ids.len()
    }
}

impl FromDatum for Uuids<'_> {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _: pg_sys::Oid,
    ) -> Option<Self> {
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
                return Some(Uuids {
                    ids: &[],
                    elements: 0,
                });
            }
            let bounds = array.add(1).cast::<i32>();
            let elements = (0..dimensions).map(|n| *bounds.add(n) as usize).product();
            let start = match (*array).dataoffset {
                0 => (size_of::<pg_sys::ArrayType>() + dimensions * 2 * size_of::<i32>())
                    .next_multiple_of(8),
                offset => offset as usize,
            };
            let bytes = varlena::varsize_4b(array.cast()).saturating_sub(start);
            let present = usize::min(bytes / size_of::<Uuid>(), elements);
            let ids = std::slice::from_raw_parts(array.byte_add(start).cast::<Uuid>(), present);
            Some(Uuids { ids, elements })
        }
    }
}

// SAFETY: reads the datum as the uuid[] that ARGUMENT_SQL declares.
unsafe impl<'fcx> ArgAbi<'fcx> for Uuids<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's; NULL reaches us only as Option, which asks before.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Uuids {
            ids: &[],
            elements: 0,
        })
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
    /// The datum, once it is known to be fit to be stored. Errors with 22023 otherwise.
    pub fn checked(self) -> pg_sys::Datum {
        if !guard::metadata::is_fit(self.datum) {
            errors::bad_metadata();
        }
        self.datum
    }
}

impl FromDatum for Metadata<'_> {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _: pg_sys::Oid,
    ) -> Option<Self> {
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
        unsafe { arg.unbox_arg_using_from_datum() }
            .unwrap_or_else(|| panic!("argument {index} must not be null"))
    }
}

// SAFETY: as above.
unsafe impl SqlTranslatable for Metadata<'_> {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Metadata<'_>);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::As("jsonb"));
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
