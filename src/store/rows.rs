//! What a statement of ours returned.

use std::{marker::PhantomData, ptr::NonNull};

use pgrx::{FromDatum, pg_sys};
use uuid::Uuid;

use crate::{
    pg::{
        compat, errors,
        text::{self, Stored},
    },
    rules::time::Micros,
};

/// As many columns as the widest of our statements has, at least.
const COLUMNS: usize = 12;

/// A result. Nothing of it outlives the closure it was handed to.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    table: Option<NonNull<pg_sys::SPITupleTable>>,
    processed: u64,
    _statement: PhantomData<&'a ()>,
}

impl<'a> Rows<'a> {
    /// # Safety
    /// `table` is null or the last SPI result, of `processed` tuples, and stays as it is for `'a`.
    pub(super) unsafe fn of(table: *mut pg_sys::SPITupleTable, processed: u64) -> Rows<'a> {
        let table = NonNull::new(table);
        // SAFETY: as the caller promises.
        if table.is_some_and(|table| unsafe { (*table.as_ref().tupdesc).natts } > COLUMNS as i32) {
            errors::damaged_install();
        }
        Rows {
            table,
            processed,
            _statement: PhantomData,
        }
    }

    /// How many rows it returned or wrote.
    pub fn count(self) -> u64 {
        self.processed
    }

    pub fn iter(self) -> impl Iterator<Item = Row<'a>> {
        let rows = if self.table.is_some() {
            self.processed as usize
        } else {
            0
        };
        (0..rows).filter_map(move |n| self.row(n))
    }

    pub fn first(self) -> Option<Row<'a>> {
        self.iter().next()
    }

    fn row(self, n: usize) -> Option<Row<'a>> {
        let table = self.table?;
        let mut row = Row {
            datums: [pg_sys::Datum::null(); COLUMNS],
            nulls: [true; COLUMNS],
            // SAFETY: the table holds `processed` tuples.
            tuple: unsafe { *table.as_ref().vals.add(n) },
            table,
            _statement: PhantomData,
        };
        // SAFETY: table and tuple belong together, and have as many columns as both arrays have room for.
        unsafe {
            pg_sys::heap_deform_tuple(
                row.tuple,
                table.as_ref().tupdesc,
                row.datums.as_mut_ptr(),
                row.nulls.as_mut_ptr(),
            );
        }
        Some(row)
    }
}

/// One row. Columns count from 1, and their types are the caller's to know, as the SQL is.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    datums: [pg_sys::Datum; COLUMNS],
    nulls: [bool; COLUMNS],
    tuple: pg_sys::HeapTuple,
    table: NonNull<pg_sys::SPITupleTable>,
    _statement: PhantomData<&'a ()>,
}

impl Row<'_> {
    pub fn uuid(&self, column: usize) -> Option<Uuid> {
        self.get::<pgrx::Uuid>(column)
            .map(|uuid| Uuid::from_bytes(*uuid.as_bytes()))
    }

    /// Errors with 22021 or 22P05 where it is no UTF-8 and cannot be made so.
    pub fn text(&self, column: usize) -> Option<String> {
        self.bytes(column).map(|text| text::decode(text).to_owned())
    }

    /// As `text`, but nothing where that raises an error.
    pub fn text_if_valid(&self, column: usize) -> Option<String> {
        self.bytes(column).and_then(text::try_decode).map(str::to_owned)
    }

    /// A text that is not to be read.
    pub fn stored(&self, column: usize) -> Option<Stored> {
        self.bytes(column).map(Stored::copy)
    }

    /// Whether the column is not NULL.
    pub fn has(&self, column: usize) -> bool {
        self.datum(column).is_some()
    }

    pub fn bigint(&self, column: usize) -> Option<i64> {
        self.get(column)
    }

    pub fn bool(&self, column: usize) -> Option<bool> {
        self.get(column)
    }

    pub fn time(&self, column: usize) -> Option<Micros> {
        self.typed(column, pg_sys::TIMESTAMPTZOID)
            .map(|datum| datum.value() as Micros)
    }

    /// The tuple itself, with the columns of the statement.
    pub fn tuple(&self) -> pg_sys::HeapTuple {
        self.tuple
    }

    fn get<T: FromDatum + pgrx::IntoDatum>(&self, column: usize) -> Option<T> {
        let datum = self.typed(column, T::type_oid())?;
        // SAFETY: the datum is one of this type.
        unsafe { T::from_datum(datum, false) }
    }

    fn bytes(&self, column: usize) -> Option<&[u8]> {
        let datum = self.typed(column, pg_sys::TEXTOID)?;
        // SAFETY: a text, which lives as long as the row.
        Some(unsafe { text::bytes(datum) })
    }

    /// The datum of a column that has to be of this type. Errors: 55000 where a table of ours was changed and it is not.
    fn typed(&self, column: usize, expected: pg_sys::Oid) -> Option<pg_sys::Datum> {
        let datum = self.datum(column)?;
        // SAFETY: the table lives as long as the row.
        if unsafe { compat::column_type(self.table.as_ref().tupdesc, column) } != Some(expected) {
            errors::damaged_install();
        }
        Some(datum)
    }

    fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        (!self.nulls[column - 1]).then(|| self.datums[column - 1])
    }
}
