//! Statements on our own tables: prepared once per backend, executed with the rights of the tables' owner.
//!
//! A kept plan is prepared again once the tables are other ones (after DROP and CREATE EXTENSION) or a schema was
//! renamed, and where a rule has left nothing of the statement, as PostgreSQL does not notice when that rule is dropped.
//! Any other invalidation is handled by PostgreSQL's plan cache.

use std::{
    cell::Cell,
    ffi::{CString, c_char},
    panic::AssertUnwindSafe,
    ptr::{NonNull, null, null_mut},
};

use pgrx::{
    PgSqlErrorCode, PgTryBuilder, Spi,
    pg_sys::{
        self, Oid,
        panic::{CaughtError, ErrorReportWithLevel},
    },
};

use super::{
    lock_wait,
    owner_rights::as_owner,
    planning::{self, Access},
    rows::{Row, Rows},
    value::Value,
};
use crate::pg::{errors, installed};

/// What a statement that reads sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Snapshot {
    /// What the calling statement sees, so that its other reads of our tables agree with it.
    Caller,
    /// All that is committed, even in a transaction that keeps one snapshot, and what this transaction has written.
    /// Parallel workers cannot take a snapshot of their own: there it is the same as `Caller`.
    Latest,
}

/// A statement of ours. To be a `thread_local!` static.
pub struct Statement {
    /// Returns the text for the quoted name of our schema.
    text: fn(&str) -> String,
    types: &'static [Oid],
    access: Access,
    plan: Cell<Option<Plan>>,
    /// The number of executions in progress: a trigger on our tables may execute the same statement again.
    depth: Cell<u32>,
}

#[derive(Clone, Copy)]
struct Plan {
    plan: NonNull<pg_sys::_SPI_plan>,
    /// `user_sessions` when it was prepared.
    sessions: Oid,
    /// [`planning::schema_changes`] when it was prepared.
    schema_changes: u32,
    /// Whether it has been executed, and so planned.
    planned: bool,
}

impl Statement {
    /// A statement on a few rows. `types` are those of its parameters, in order.
    pub const fn new(text: fn(&str) -> String, types: &'static [Oid]) -> Statement {
        Statement::with(Access::Few, text, types)
    }

    /// A statement on batches of rows.
    pub const fn on_many(text: fn(&str) -> String, types: &'static [Oid]) -> Statement {
        Statement::with(Access::Many, text, types)
    }

    /// A statement that joins batches of rows with an array argument.
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
            depth: Cell::new(0),
        }
    }

    /// Executes a statement that only reads, and passes its result to `f`. Assigns no transaction id.
    pub fn read<R>(&self, snapshot: Snapshot, values: &[Value], f: impl FnOnce(Rows) -> R) -> R {
        self.run(values, |execution| {
            f(with_snapshot(snapshot, || execution.execute(true)))
        })
    }

    /// Executes a statement that writes, and passes its result to `f`. It sees all that is committed before it, also in a
    /// transaction that keeps one snapshot. Errors: 25006 where nothing can be written, 55P03 where others keep a lock for
    /// too long.
    pub fn write<R>(&self, values: &[Value], f: impl FnOnce(Rows) -> R) -> R {
        lock_wait::bounded(|| self.run(values, |execution| f(execution.execute(false))))
    }

    /// Reads with [`Snapshot::Latest`], and calls `f` with each row. After each `batch` rows it calls `goes_on`, and
    /// stops if that returns false. At most one batch is in memory at a time.
    pub fn read_in_batches(
        &self,
        values: &[Value],
        batch: i64,
        mut f: impl FnMut(Row),
        mut goes_on: impl FnMut() -> bool,
    ) {
        as_owner(|| {
            let cursor = self.run(values, |execution| {
                with_snapshot(Snapshot::Latest, || execution.open_cursor())
            });
            // A connection for each batch, as SPI keeps every result until its connection is closed.
            while Spi::connect(|_| {
                // SAFETY: the cursor is open until it is closed below, or by the end of the transaction. The result is
                // read before anything else is executed.
                let rows = unsafe {
                    pg_sys::SPI_cursor_fetch(cursor, true, batch);
                    Rows::from_spi(pg_sys::SPI_tuptable, pg_sys::SPI_processed)
                };
                rows.iter().for_each(&mut f);
                rows.count() > 0
            }) && goes_on()
            {}
            // SAFETY: the cursor is open, and not used after this.
            unsafe { pg_sys::SPI_cursor_close(cursor) };
        });
    }

    fn run<R>(&self, values: &[Value], f: impl FnOnce(&Execution) -> R) -> R {
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
                let is_planned = self.is_planned();
                // A plan made for an empty table must not be kept for a large one. For batches the cost of the settings
                // is paid each time, as the plan may be made again, for example because the table was just analyzed.
                let _settings = (self.access != Access::Few || !is_planned).then(|| planning::force_plan(self.access));
                if !is_planned {
                    make_plan(plan);
                }
                let _depth = DepthGuard::enter(&self.depth);
                let execution = Execution {
                    plan: plan.as_ptr(),
                    datums: &datums,
                    nulls: &nulls,
                };
                let result = if is_planned {
                    with_replanning_checked(plan, || f(&execution))
                } else {
                    f(&execution)
                };
                self.mark_planned();
                result
            })
        })
    }

    fn plan(&self) -> NonNull<pg_sys::_SPI_plan> {
        let sessions = installed::get().sessions;
        let schema_changes = planning::schema_changes();
        if let Some(kept) = self.plan.get() {
            if kept.sessions == sessions && kept.schema_changes == schema_changes && !is_empty(kept.plan) {
                return kept.plan;
            }
            self.plan.set(None);
            if self.depth.get() == 0 {
                // SAFETY: it is not being executed, and nothing points to it any more.
                unsafe { pg_sys::SPI_freeplan(kept.plan.as_ptr()) };
            }
        }
        let text = CString::new((self.text)(&installed::schema_name())).unwrap_or_default();
        let mut types = self.types.to_vec();
        let generic = pg_sys::CURSOR_OPT_GENERIC_PLAN as i32;
        // SAFETY: we are connected to SPI, and `types` outlives the call.
        let plan = unsafe {
            let plan = with_definitions_checked(|| {
                pg_sys::SPI_prepare_cursor(text.as_ptr(), types.len() as i32, types.as_mut_ptr(), generic)
            });
            let Some(plan) = NonNull::new(plan) else {
                errors::damaged_install();
            };
            if is_empty(plan) || pg_sys::SPI_keepplan(plan.as_ptr()) != 0 {
                errors::damaged_install();
            }
            plan
        };
        self.plan.set(Some(Plan {
            plan,
            sessions,
            schema_changes,
            planned: false,
        }));
        plan
    }

    /// Whether the kept plan will be executed without being planned again.
    fn is_planned(&self) -> bool {
        self.plan.get().is_some_and(|kept| {
            // SAFETY: a plan that is kept.
            kept.planned && unsafe { pg_sys::SPI_plan_is_valid(kept.plan.as_ptr()) }
        })
    }

    fn mark_planned(&self) {
        self.plan
            .set(self.plan.get().map(|kept| Plan { planned: true, ..kept }));
    }
}

/// A plan with its arguments, inside a connection to SPI. The plan is not freed meanwhile (see `depth`), and has as
/// many parameters as there are datums.
struct Execution<'a> {
    plan: pg_sys::SPIPlanPtr,
    datums: &'a [pg_sys::Datum],
    nulls: &'a [u8],
}

impl Execution<'_> {
    /// Executes the plan. The result has to be read before anything else is executed.
    fn execute(&self, read_only: bool) -> Rows<'_> {
        // SAFETY: plan and arguments match, by the type's invariant. PostgreSQL does not write to the arguments, though
        // its signature allows it.
        unsafe {
            pg_sys::SPI_tuptable = null_mut();
            let status = if read_only || !keeps_one_snapshot() {
                pg_sys::SPI_execute_plan(self.plan, self.datums.as_ptr().cast_mut(), self.nulls(), read_only, 0)
            } else {
                pg_sys::SPI_execute_snapshot(
                    self.plan,
                    self.datums.as_ptr().cast_mut(),
                    self.nulls(),
                    pg_sys::GetLatestSnapshot(),
                    null_mut(),
                    false,
                    true,
                    0,
                )
            };
            if status < 0 {
                errors::damaged_install();
            }
            Rows::from_spi(pg_sys::SPI_tuptable, pg_sys::SPI_processed)
        }
    }

    /// Opens a cursor, which stays open when the connection to SPI is closed.
    fn open_cursor(&self) -> pg_sys::Portal {
        // SAFETY: plan and arguments match, by the type's invariant; the cursor copies the arguments.
        unsafe { pg_sys::SPI_cursor_open(null(), self.plan, self.datums.as_ptr().cast_mut(), self.nulls(), true) }
    }

    fn nulls(&self) -> *const c_char {
        self.nulls.as_ptr().cast()
    }
}

/// Whether the transaction keeps one snapshot, as REPEATABLE READ and SERIALIZABLE do. With that snapshot a write of a
/// row that the worker has flushed since would fail, as PostgreSQL takes that for a concurrent change.
fn keeps_one_snapshot() -> bool {
    // SAFETY: reads a variable of this backend.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Plans a statement before it is executed, so that what keeps it from being planned is told from what its execution
/// raises, as in a trigger. The execution uses this plan, as the tables stay locked.
fn make_plan(plan: NonNull<pg_sys::_SPI_plan>) {
    // SAFETY: a kept plan of one statement, inside a connection to SPI; its reference is given back to the owner it was
    // taken for, here or by the abort.
    unsafe {
        let cached = with_definitions_checked(|| pg_sys::SPI_plan_get_cached_plan(plan.as_ptr()));
        if !cached.is_null() {
            pg_sys::ReleaseCachedPlan(cached, pg_sys::CurrentResourceOwner);
        }
    }
    if is_empty(plan) {
        errors::damaged_install();
    }
}

/// The only statement of a plan.
///
/// # Safety
/// It was prepared from one statement, and is not freed while the source is used.
unsafe fn source<'a>(plan: NonNull<pg_sys::_SPI_plan>) -> &'a pg_sys::CachedPlanSource {
    // SAFETY: a list of one pointer to a source.
    unsafe {
        let sources = pg_sys::SPI_plan_get_plan_sources(plan.as_ptr());
        &*(*(*sources).elements).ptr_value.cast()
    }
}

/// Whether a rule has left nothing of the statement: DO INSTEAD NOTHING.
fn is_empty(plan: NonNull<pg_sys::_SPI_plan>) -> bool {
    // SAFETY: a plan of ours, used here only.
    unsafe { source(plan).query_list.is_null() }
}

/// Runs `f`, which executes a statement that was planned before. Errors: 55000 where it had to be planned again, as a
/// table was altered while this waited for the table's lock, and could not be.
fn with_replanning_checked<R>(plan: NonNull<pg_sys::_SPI_plan>, f: impl FnOnce() -> R) -> R {
    PgTryBuilder::new(AssertUnwindSafe(f))
        .catch_others(|error| match error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)
                // SAFETY: reads a kept plan, and no catalog. To plan it again, PostgreSQL has first given up the old one.
                if is_definition(&report) && unsafe { source(plan).gplan.is_null() } =>
            {
                errors::damaged_install()
            }
            other => other.rethrow(),
        })
        .execute()
}

/// Runs `f`, which parses or plans a statement of ours. Errors: 55000 where the tables or functions that it names are
/// missing or of another type, or lack the index that it needs: the library is newer than they are, or somebody has
/// altered them, or dropped the extension while `f` waited for a lock.
fn with_definitions_checked<R>(f: impl FnOnce() -> R) -> R {
    PgTryBuilder::new(AssertUnwindSafe(f))
        .catch_others(|error| match error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) if is_definition(&report) => {
                installed::missing()
            }
            other => other.rethrow(),
        })
        .execute()
}

/// Whether an error is about an object that a statement names.
fn is_definition(report: &ErrorReportWithLevel) -> bool {
    matches!(
        report.sql_error_code(),
        PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE
            | PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN
            | PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION
            | PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT
            | PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME
            | PgSqlErrorCode::ERRCODE_AMBIGUOUS_COLUMN
            | PgSqlErrorCode::ERRCODE_AMBIGUOUS_FUNCTION
            | PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH
            | PgSqlErrorCode::ERRCODE_CANNOT_COERCE
            | PgSqlErrorCode::ERRCODE_INDETERMINATE_DATATYPE
            | PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION
            | PgSqlErrorCode::ERRCODE_INVALID_COLUMN_REFERENCE
            | PgSqlErrorCode::ERRCODE_GENERATED_ALWAYS
            | PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE
            | PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED
            | PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            // The tables have got an owner who may not use the schema.
            | PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE
    )
}

/// Runs one execution under `snapshot`.
fn with_snapshot<R>(snapshot: Snapshot, execute: impl FnOnce() -> R) -> R {
    // SAFETY: reads a variable of this backend.
    if snapshot == Snapshot::Caller || unsafe { pg_sys::IsInParallelMode() } {
        return execute();
    }
    // SAFETY: popped below; an error in between aborts the (sub)transaction, which pops what it pushed.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let result = execute();
    // SAFETY: pops what was pushed above; the execution leaves the stack as it found it.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// Counts an execution for as long as it is in progress, also when an error unwinds it.
struct DepthGuard<'a>(&'a Cell<u32>);

impl DepthGuard<'_> {
    fn enter(depth: &Cell<u32>) -> DepthGuard<'_> {
        depth.set(depth.get() + 1);
        DepthGuard(depth)
    }
}

impl Drop for DepthGuard<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
