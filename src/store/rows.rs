//! The result of a statement.

use std::{marker::PhantomData, ptr::NonNull};

use pgrx::{FromDatum, pg_sys};
use uuid::Uuid;

use crate::{
    pg::{
        compat, errors, memory,
        text::{self, EncodedText},
    },
    rules::time::Micros,
};

/// The most columns that a statement of ours may return.
const MAX_COLUMNS: usize = 12;

/// All rows of a result. They do not outlive the closure that they are passed to.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    table: Option<NonNull<pg_sys::SPITupleTable>>,
    processed: u64,
    _statement: PhantomData<&'a ()>,
}

impl<'a> Rows<'a> {
    /// # Safety
    /// `table` is null or the last SPI result, of `processed` tuples, and stays unchanged for `'a`.
    pub(super) unsafe fn from_spi(table: *mut pg_sys::SPITupleTable, processed: u64) -> Rows<'a> {
        let table = NonNull::new(table);
        // SAFETY: as the caller promises.
        if table.is_some_and(|table| unsafe { (*table.as_ref().tupdesc).natts } > MAX_COLUMNS as i32) {
            errors::damaged_install();
        }
        Rows {
            table,
            processed,
            _statement: PhantomData,
        }
    }

    /// Returns how many rows the statement returned or wrote.
    pub fn count(self) -> u64 {
        self.processed
    }

    pub fn iter(self) -> impl Iterator<Item = Row<'a>> {
        let count = if self.table.is_some() {
            self.processed as usize
        } else {
            0
        };
        (0..count).filter_map(move |index| self.row(index))
    }

    pub fn first(self) -> Option<Row<'a>> {
        self.iter().next()
    }

    fn row(self, index: usize) -> Option<Row<'a>> {
        let table = self.table?;
        let mut row = Row {
            datums: [pg_sys::Datum::null(); MAX_COLUMNS],
            nulls: [true; MAX_COLUMNS],
            // SAFETY: the table holds `processed` tuples.
            tuple: unsafe { *table.as_ref().vals.add(index) },
            table,
            _statement: PhantomData,
        };
        // SAFETY: the tuple is one of the table, and both arrays have room for its columns.
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

/// One row. Columns are numbered from 1. Methods that convert a column error with 55000 where its type is another one.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    datums: [pg_sys::Datum; MAX_COLUMNS],
    nulls: [bool; MAX_COLUMNS],
    tuple: pg_sys::HeapTuple,
    table: NonNull<pg_sys::SPITupleTable>,
    _statement: PhantomData<&'a ()>,
}

impl Row<'_> {
    pub fn uuid(&self, column: usize) -> Option<Uuid> {
        self.get::<pgrx::Uuid>(column)
            .map(|uuid| Uuid::from_bytes(*uuid.as_bytes()))
    }

    /// Errors with 22021 or 22P05 where the text cannot be converted to UTF-8.
    pub fn text(&self, column: usize) -> Option<String> {
        self.bytes(column).map(|text| memory::copy_text(text::decode(text)))
    }

    /// As `text`, but `None` where that raises an error.
    pub fn text_if_valid(&self, column: usize) -> Option<String> {
        self.bytes(column).and_then(text::try_decode).map(memory::copy_text)
    }

    /// Returns a text that is passed through without being decoded.
    pub fn encoded_text(&self, column: usize) -> Option<EncodedText> {
        self.bytes(column).map(EncodedText::copy)
    }

    /// Whether the column is not NULL.
    pub fn is_not_null(&self, column: usize) -> bool {
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

    /// Returns the tuple itself, with the columns of the statement.
    pub fn tuple(&self) -> pg_sys::HeapTuple {
        self.tuple
    }

    fn get<T: FromDatum + pgrx::IntoDatum>(&self, column: usize) -> Option<T> {
        let datum = self.typed(column, T::type_oid())?;
        // SAFETY: the datum is of this type.
        unsafe { T::from_datum(datum, false) }
    }

    /// Returns a text in the encoding of the database.
    pub fn bytes(&self, column: usize) -> Option<&[u8]> {
        let datum = self.typed(column, pg_sys::TEXTOID)?;
        // SAFETY: the datum is a text, and lives as long as the row.
        Some(unsafe { text::bytes(datum) })
    }

    /// Returns the datum of a column. Errors with 55000 where the column is not of the expected type, because a table
    /// of ours was altered.
    fn typed(&self, column: usize, expected: pg_sys::Oid) -> Option<pg_sys::Datum> {
        let datum = self.datum(column)?;
        // SAFETY: the table lives as long as the row does.
        if unsafe { compat::column_type(self.table.as_ref().tupdesc, column) } != Some(expected) {
            errors::damaged_install();
        }
        Some(datum)
    }

    fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        (!self.nulls[column - 1]).then(|| self.datums[column - 1])
    }
}
