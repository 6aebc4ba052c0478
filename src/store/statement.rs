//! Statements on our own tables: prepared once in a backend, run as the tables' owner.
//!
//! A plan is good while the tables are the same (DROP and CREATE EXTENSION make new ones) and no schema was renamed; the
//! rest PostgreSQL looks after itself.

use std::{
    cell::Cell,
    ffi::{CString, c_char},
    ptr::{NonNull, null, null_mut},
};

use pgrx::{
    PgSqlErrorCode, PgTryBuilder, Spi,
    pg_sys::{self, Oid},
};

use super::{
    owner_rights::as_owner,
    planning::{self, Access},
    rows::{Row, Rows},
    value::Value,
};
use crate::pg::{errors, installed};

/// What a reading statement snapshot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Snapshot {
    /// What the calling statement sees, so that its other reads of our tables agree with it.
    Caller,
    /// Whatever is committed, also in a transaction that keeps one snapshot, and what this transaction has written.
    /// Parallel workers cannot take a snapshot of their own: there it is as `Caller`.
    Latest,
}

/// A statement of ours. Make it a `thread_local!` static.
pub struct Statement {
    /// Its text, given the quoted name of our schema.
    text: fn(&str) -> String,
    types: &'static [Oid],
    access: Access,
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
    /// A statement on a few rows. `types` are those of the parameters `$1`, `$2`… in order.
    pub const fn new(text: fn(&str) -> String, types: &'static [Oid]) -> Statement {
        Statement::with(Access::Few, text, types)
    }

    /// A statement on batches of rows.
    pub const fn on_many(text: fn(&str) -> String, types: &'static [Oid]) -> Statement {
        Statement::with(Access::Many, text, types)
    }

    /// A statement on the rows of a table that an argument has more to say of.
    pub const fn joined(text: fn(&str) -> String, types: &'static [Oid]) -> Statement {
        Statement::with(Access::Joined, text, types)
    }

    /// A statement on a whole table.
    pub const fn on_all(text: fn(&str) -> String, types: &'static [Oid]) -> Statement {
        Statement::with(Access::All, text, types)
    }

    const fn with(access: Access, text: fn(&str) -> String, types: &'static [Oid]) -> Statement {
        Statement {
            text,
            types,
            access,
            plan: Cell::new(None),
            running: Cell::new(0),
        }
    }

    /// Runs a statement that only reads. Assigns no transaction id.
    pub fn read<R>(&self, snapshot: Snapshot, values: &[Value], take: impl FnOnce(Rows) -> R) -> R {
        self.run(values, |call| take(seeing(snapshot, || call.execute(true))))
    }

    /// Runs a statement that writes, and snapshot what was committed before it. Errors with 25006 where nothing can be
    /// written.
    pub fn write<R>(&self, values: &[Value], take: impl FnOnce(Rows) -> R) -> R {
        self.run(values, |call| take(call.execute(false)))
    }

    /// Reads as [`Snapshot::Latest`], and calls `row` with each row. After each `batch` rows it asks whether to `go_on`. No
    /// more than one batch is in memory at a time.
    pub fn read_in_batches(
        &self,
        values: &[Value],
        batch: i64,
        mut row: impl FnMut(Row),
        mut go_on: impl FnMut() -> bool,
    ) {
        as_owner(|| {
            let cursor = self.run(values, |call| seeing(Snapshot::Latest, || call.open()));
            // A connection for each batch, as SPI keeps every result until its connection is closed.
            while Spi::connect(|_| {
                // SAFETY: the cursor is open until it is closed below, or by the end of the transaction. The result is
                // read before anything else is executed.
                let rows = unsafe {
                    pg_sys::SPI_cursor_fetch(cursor, true, batch);
                    Rows::of(pg_sys::SPI_tuptable, pg_sys::SPI_processed)
                };
                rows.iter().for_each(&mut row);
                rows.count() > 0
            }) && go_on()
            {}
            // SAFETY: as above.
            unsafe { pg_sys::SPI_cursor_close(cursor) };
        });
    }

    fn run<R>(&self, values: &[Value], f: impl FnOnce(&Call) -> R) -> R {
        assert_eq!(values.len(), self.types.len());
        let datums: Vec<_> = values.iter().map(|value| value.datum()).collect();
        let nulls: Vec<_> = datums
            .iter()
            .map(|datum| if datum.is_some() { b' ' } else { b'n' })
            .collect();
        let datums: Vec<_> = datums
            .into_iter()
            .map(|datum| datum.unwrap_or(pg_sys::Datum::null()))
            .collect();
        as_owner(|| {
            Spi::connect(|_| {
                let plan = self.plan();
                // An empty table must not make a plan that is kept for a large one. For batches also the plan that
                // is made anew because the table has just been analyzed is worth the price of setting this.
                let _planning =
                    (self.access != Access::Few || !self.is_planned()).then(|| planning::choose(self.access));
                let _running = Running::enter(&self.running);
                let done = f(&Call {
                    plan: plan.as_ptr(),
                    datums: &datums,
                    nulls: &nulls,
                });
                self.note_planned();
                done
            })
        })
    }

    fn plan(&self) -> NonNull<pg_sys::_SPI_plan> {
        let sessions = installed::get().sessions;
        let renames = planning::schema_renames();
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
        let text = CString::new((self.text)(&installed::schema_name())).unwrap_or_default();
        let mut types = self.types.to_vec();
        let generic = pg_sys::CURSOR_OPT_GENERIC_PLAN as i32;
        // SAFETY: we are connected to SPI, and `types` outlives the call.
        let plan = unsafe {
            let prepare = std::panic::AssertUnwindSafe(|| {
                pg_sys::SPI_prepare_cursor(text.as_ptr(), types.len() as i32, types.as_mut_ptr(), generic)
            });
            // What a newer library asks for and older SQL has not made.
            let plan = PgTryBuilder::new(prepare)
                .catch_when(PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, |_| errors::damaged_install())
                .execute();
            if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
                errors::damaged_install();
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
        self.plan
            .get()
            .is_some_and(|kept| kept.planned && unsafe { pg_sys::SPI_plan_is_valid(kept.plan.as_ptr()) })
    }

    fn note_planned(&self) {
        self.plan
            .set(self.plan.get().map(|kept| Plan { planned: true, ..kept }));
    }
}

/// A plan with its arguments, inside a connection to SPI. The plan is kept while it runs (`running`), and takes as
/// many datums as there are.
struct Call<'a> {
    plan: pg_sys::SPIPlanPtr,
    datums: &'a [pg_sys::Datum],
    nulls: &'a [u8],
}

impl Call<'_> {
    /// The result is to be read before anything else is executed.
    fn execute(&self, read_only: bool) -> Rows<'_> {
        // SAFETY: as the type says. PostgreSQL does not write to the arguments, though its signature allows it.
        unsafe {
            pg_sys::SPI_tuptable = null_mut();
            let status =
                pg_sys::SPI_execute_plan(self.plan, self.datums.as_ptr().cast_mut(), self.nulls(), read_only, 0);
            if status < 0 {
                errors::damaged_install();
            }
            Rows::of(pg_sys::SPI_tuptable, pg_sys::SPI_processed)
        }
    }

    /// A cursor on what it reads, which stays when the connection to SPI is closed.
    fn open(&self) -> pg_sys::Portal {
        // SAFETY: as the type says; the cursor copies its arguments.
        unsafe { pg_sys::SPI_cursor_open(null(), self.plan, self.datums.as_ptr().cast_mut(), self.nulls(), true) }
    }

    fn nulls(&self) -> *const c_char {
        self.nulls.as_ptr().cast()
    }
}

/// Runs one execution under the snapshot it is to have.
fn seeing<R>(snapshot: Snapshot, execute: impl FnOnce() -> R) -> R {
    // SAFETY: reads a variable of this backend.
    if snapshot == Snapshot::Caller || unsafe { pg_sys::IsInParallelMode() } {
        return execute();
    }
    // SAFETY: pushed and popped around one execution; an error in between ends the (sub)transaction, which pops what
    // it pushed.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let done = execute();
    unsafe { pg_sys::PopActiveSnapshot() };
    done
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
