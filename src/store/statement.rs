//! Statements on our own tables: prepared once in a backend, run as the tables' owner.
//!
//! A plan is good while the tables are the same (DROP and CREATE EXTENSION make new ones) and no schema was renamed; the
//! rest PostgreSQL looks after itself.

use super::as_owner;
use super::bulk::{Access, Planning};
use super::value::Value;
use crate::core::time::Micros;
use crate::installed;
use crate::text::{self, Stored};
use pgrx::pg_sys::{self, Oid};
use pgrx::{FromDatum, Spi};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use uuid::Uuid;

/// What a reading statement sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// What the calling statement sees, so that its other reads of our tables agree with it.
    Caller,
    /// Whatever is committed, also in a transaction that keeps one snapshot. Parallel workers cannot take one of their
    /// own: there it is as `Caller`.
    Latest,
}

/// A statement with `{s}` for the schema of our tables. Make it a `thread_local!` static.
pub struct Statement {
    sql: &'static str,
    types: &'static [Oid],
    plan: Cell<Option<Plan>>,
    /// How many calls are inside: a trigger on our tables may come back here.
    running: Cell<u32>,
}

#[derive(Clone, Copy)]
struct Plan {
    plan: NonNull<pg_sys::_SPI_plan>,
    sessions: Oid,
    renames: u32,
    /// It has been executed, and so planned.
    planned: bool,
}

impl Statement {
    /// `types` are those of the parameters `$1`, `$2`… in order.
    pub const fn new(sql: &'static str, types: &'static [Oid]) -> Statement {
        Statement {
            sql,
            types,
            plan: Cell::new(None),
            running: Cell::new(0),
        }
    }

    /// Runs a statement that only reads. Assigns no transaction id.
    pub fn read<R>(&self, sees: Sees, values: &[Value], take: impl FnOnce(Rows) -> R) -> R {
        let latest = sees == Sees::Latest && !in_parallel_mode();
        self.run(values, true, |run| {
            if !latest {
                return take(run());
            }
            // SAFETY: pushed and popped around one execution; an error in between ends the (sub)transaction, which
            // pops what it pushed.
            unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
            let rows = run();
            unsafe { pg_sys::PopActiveSnapshot() };
            take(rows)
        })
    }

    /// Runs a statement that writes, and sees what was committed before it. Errors with 25006 where nothing can be
    /// written.
    pub fn write<R>(&self, values: &[Value], take: impl FnOnce(Rows) -> R) -> R {
        self.run(values, false, |run| take(run()))
    }

    fn run<R>(
        &self,
        values: &[Value],
        read_only: bool,
        f: impl FnOnce(&dyn Fn() -> Rows<'static>) -> R,
    ) -> R {
        let mut datums: Vec<_> = values.iter().map(|value| value.datum()).collect();
        let nulls: Vec<_> = datums
            .iter()
            .map(|datum| if datum.is_some() { b' ' } else { b'n' })
            .collect();
        let mut datums: Vec<_> = datums
            .drain(..)
            .map(|datum| datum.unwrap_or(pg_sys::Datum::null()))
            .collect();
        let datums = datums.as_mut_ptr();
        assert_eq!(values.len(), self.types.len());
        as_owner(|| {
            Spi::connect(|_| {
                let plan = self.plan();
                // An empty table must not make a plan that is kept for a large one.
                let _planning = (!self.is_planned()).then(|| Planning::choose(Access::Point));
                let _running = Running::enter(&self.running);
                f(&|| {
                    // SAFETY: the plan is kept while it runs (`running`), and takes as many datums as there are.
                    // The result is that of the execution, read before anything else is executed.
                    unsafe {
                        pg_sys::SPI_tuptable = std::ptr::null_mut();
                        let status = pg_sys::SPI_execute_plan(
                            plan.as_ptr(),
                            datums,
                            nulls.as_ptr().cast(),
                            read_only,
                            0,
                        );
                        if status < 0 {
                            crate::errors::damaged_install();
                        }
                        self.note_planned();
                        Rows::of(pg_sys::SPI_tuptable, pg_sys::SPI_processed)
                    }
                })
            })
        })
    }

    fn plan(&self) -> NonNull<pg_sys::_SPI_plan> {
        let sessions = installed::get().sessions;
        let renames = schema_renames();
        if let Some(old) = self.plan.get() {
            if old.sessions == sessions && old.renames == renames {
                return old.plan;
            }
            self.plan.set(None);
            if self.running.get() == 0 {
                // SAFETY: nobody runs it and nobody can find it any more.
                unsafe { pg_sys::SPI_freeplan(old.plan.as_ptr()) };
            }
        }
        let sql = self.sql.replace("{s}", &installed::schema_name());
        let sql = std::ffi::CString::new(sql).unwrap_or_default();
        let mut types = self.types.to_vec();
        let generic = pg_sys::CURSOR_OPT_GENERIC_PLAN as i32;
        // SAFETY: we are connected to SPI, and `types` outlives the call.
        let plan = unsafe {
            let plan = pg_sys::SPI_prepare_cursor(
                sql.as_ptr(),
                types.len() as i32,
                types.as_mut_ptr(),
                generic,
            );
            if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
                crate::errors::damaged_install();
            }
            NonNull::new_unchecked(plan)
        };
        self.plan.set(Some(Plan {
            plan,
            sessions,
            renames,
            planned: false,
        }));
        plan
    }

    /// Whether the kept plan will be executed as it is.
    fn is_planned(&self) -> bool {
        // SAFETY: a plan that is kept.
        self.plan.get().is_some_and(|kept| {
            kept.planned && unsafe { pg_sys::SPI_plan_is_valid(kept.plan.as_ptr()) }
        })
    }

    fn note_planned(&self) {
        self.plan.set(self.plan.get().map(|kept| Plan {
            planned: true,
            ..kept
        }));
    }
}

/// Counts a call in and, also when an error unwinds it, out.
struct Running<'a>(&'a Cell<u32>);

impl Running<'_> {
    fn enter(count: &Cell<u32>) -> Running<'_> {
        count.set(count.get() + 1);
        Running(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What a statement returned. Nothing of it outlives the closure it was handed to.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    table: Option<NonNull<pg_sys::SPITupleTable>>,
    processed: u64,
    _statement: PhantomData<&'a ()>,
}

impl<'a> Rows<'a> {
    fn of(table: *mut pg_sys::SPITupleTable, processed: u64) -> Rows<'a> {
        Rows {
            table: NonNull::new(table),
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
        // SAFETY: the tuple table holds `processed` tuples, and lives as long as the connection to SPI we are in.
        unsafe {
            Some(Row {
                tuple: *(*table.as_ptr()).vals.add(n),
                table,
                _statement: PhantomData,
            })
        }
    }
}

/// One row. Columns count from 1, and their types are the caller's to know, as the SQL is.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    tuple: pg_sys::HeapTuple,
    table: NonNull<pg_sys::SPITupleTable>,
    _statement: PhantomData<&'a ()>,
}

impl Row<'_> {
    pub fn uuid(self, column: i32) -> Option<Uuid> {
        self.get::<pgrx::Uuid>(column)
            .map(|uuid| Uuid::from_bytes(*uuid.as_bytes()))
    }

    /// Errors with 22021 or 22P05 where it is no UTF-8 and cannot be made so.
    pub fn text(self, column: i32) -> Option<String> {
        self.bytes(column).map(|text| text::decode(text).to_owned())
    }

    /// A text that is not to be read.
    pub fn stored(self, column: i32) -> Option<Stored> {
        self.bytes(column).map(Stored::copy)
    }

    /// Whether the column is not NULL.
    pub fn has(self, column: i32) -> bool {
        self.datum(column).is_some()
    }

    pub fn big(self, column: i32) -> Option<i64> {
        self.get(column)
    }

    pub fn bool(self, column: i32) -> Option<bool> {
        self.get(column)
    }

    pub fn time(self, column: i32) -> Option<Micros> {
        self.datum(column).map(|datum| datum.value() as Micros)
    }

    /// The tuple itself, with the columns of the statement.
    pub fn tuple(self) -> pg_sys::HeapTuple {
        self.tuple
    }

    fn get<T: FromDatum + pgrx::IntoDatum>(self, column: i32) -> Option<T> {
        let datum = self.datum(column)?;
        // SAFETY: the datum is one of this type, as the assertion below shows in each test that reads it.
        unsafe {
            debug_assert_eq!(pg_sys::SPI_gettypeid(self.desc(), column), T::type_oid());
            T::from_datum(datum, false)
        }
    }

    fn bytes(&self, column: i32) -> Option<&[u8]> {
        let datum = self.datum(column)?;
        // SAFETY: a text, as the assertion shows in each test that reads it, which lives as long as the row.
        unsafe {
            debug_assert_eq!(pg_sys::SPI_gettypeid(self.desc(), column), pg_sys::TEXTOID);
            Some(text::bytes(datum))
        }
    }

    fn datum(self, column: i32) -> Option<pg_sys::Datum> {
        let mut null = false;
        // SAFETY: tuple and descriptor belong together; SPI answers NULL for a column that does not exist.
        let datum = unsafe { pg_sys::SPI_getbinval(self.tuple, self.desc(), column, &mut null) };
        (!null).then_some(datum)
    }

    fn desc(self) -> pg_sys::TupleDesc {
        // SAFETY: the table lives as long as the row.
        unsafe { (*self.table.as_ptr()).tupdesc }
    }
}

fn in_parallel_mode() -> bool {
    // SAFETY: reads a variable of this backend.
    unsafe { pg_sys::IsInParallelMode() }
}

thread_local! {
    static RENAMES: Cell<u32> = const { Cell::new(0) };
    static WATCHING: Cell<bool> = const { Cell::new(false) };
}

/// A number that changes when a schema may have been renamed.
pub(super) fn schema_renames() -> u32 {
    if !WATCHING.replace(true) {
        // SAFETY: the callback only counts, and stays in memory, as a library is never unloaded.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(
                pg_sys::SysCacheIdentifier::NAMESPACEOID as i32,
                Some(schema_changed),
                pg_sys::Datum::null(),
            )
        };
    }
    RENAMES.get()
}

unsafe extern "C-unwind" fn schema_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    RENAMES.set(RENAMES.get().wrapping_add(1));
}
