//! The call of a trigger function: the operation that fired the trigger, and what the function returns.

use pgrx::{
    PgTrigger,
    callconv::{BoxRet, FcInfo},
    datum::Datum,
    pg_sys, pgrx_resolved_type,
    pgrx_sql_entity_graph::metadata::{
        ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
    },
};

use super::{
    fields::{Column, ColumnSet},
    row::TriggerRow,
};
use crate::pg::errors;

/// When a trigger fires, relative to the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    Before,
    After,
    InsteadOf,
}

/// The operation that fired a trigger.
pub enum Operation {
    Insert(TriggerRow),
    Update {
        old: TriggerRow,
        new: TriggerRow,
        /// The columns that the statement sets.
        set: ColumnSet,
    },
    Delete(TriggerRow),
    Truncate,
    /// An INSERT, UPDATE or DELETE, as a whole.
    Statement,
}

/// A call of a trigger function by PostgreSQL.
pub struct TriggerCall {
    relation: pg_sys::Relation,
    pub timing: Timing,
    pub operation: Operation,
}

impl TriggerCall {
    /// Reads the call from its frame. Errors: 55000 where the function is not called by a trigger.
    ///
    /// # Safety
    /// `fcinfo` is the frame of a call by PostgreSQL, which outlives the result.
    pub unsafe fn of(fcinfo: pg_sys::FunctionCallInfo) -> TriggerCall {
        // SAFETY: as the caller promises; from_fcinfo checks that a trigger calls.
        let Ok(trigger) = (unsafe { PgTrigger::from_fcinfo(&*fcinfo) }) else {
            errors::misplaced_trigger();
        };
        let (event, data) = (trigger.event(), trigger.trigger_data());
        // SAFETY: the relation is open, and the tuples are valid, for as long as the trigger runs.
        let row = |tuple| unsafe { TriggerRow::new(tuple, (*data.tg_relation).rd_att) };
        let timing = if event.fired_before() {
            Timing::Before
        } else if event.fired_after() {
            Timing::After
        } else {
            Timing::InsteadOf
        };
        let operation = if event.fired_by_truncate() {
            Operation::Truncate
        } else if !event.fired_for_row() {
            Operation::Statement
        } else if event.fired_by_insert() {
            Operation::Insert(row(data.tg_trigtuple))
        } else if event.fired_by_update() {
            Operation::Update {
                old: row(data.tg_trigtuple),
                new: row(data.tg_newtuple),
                set: updated_columns(data),
            }
        } else {
            Operation::Delete(row(data.tg_trigtuple))
        };
        TriggerCall {
            relation: data.tg_relation,
            timing,
            operation,
        }
    }

    /// Returns the OID of the table that is written.
    pub fn table(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open for as long as the trigger runs.
        unsafe { (*self.relation).rd_id }
    }
}

fn updated_columns(data: &pg_sys::TriggerData) -> ColumnSet {
    let columns = Column::ALL.into_iter().filter(|&column| {
        // SAFETY: the relation is open for as long as the trigger runs.
        let number = unsafe { column.number((*data.tg_relation).rd_att) } as i32;
        let member = number - pg_sys::FirstLowInvalidHeapAttributeNumber;
        // SAFETY: the set is PostgreSQL's; an empty one is null, which bms_is_member accepts.
        unsafe { pg_sys::bms_is_member(member, data.tg_updatedcols) }
    });
    ColumnSet::of(columns)
}

/// The tuple that a trigger function returns. A BEFORE trigger's is written; an AFTER trigger's is ignored.
pub struct TriggerResult(pg_sys::HeapTuple);

impl TriggerResult {
    /// Returns the row as submitted.
    pub fn unchanged(row: &TriggerRow) -> TriggerResult {
        TriggerResult(row.tuple())
    }

    /// Returns the row with the values of `columns`, by attribute number, replaced.
    ///
    /// # Safety
    /// The three slices have the same length, and each value is of its column's type.
    pub unsafe fn replaced(
        row: &TriggerRow,
        columns: &mut [i32],
        values: &mut [pg_sys::Datum],
        nulls: &mut [bool],
    ) -> TriggerResult {
        // SAFETY: as the caller promises; the new tuple is in the current memory context, which PostgreSQL resets only
        // after it has copied the tuple.
        TriggerResult(unsafe {
            pg_sys::heap_modify_tuple_by_cols(
                row.tuple(),
                row.descriptor(),
                columns.len() as i32,
                columns.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            )
        })
    }

    /// Returns no row: the statement continues without this one.
    pub fn skip_row() -> TriggerResult {
        TriggerResult(std::ptr::null_mut())
    }

    /// Returns the result of an AFTER trigger.
    pub fn none() -> TriggerResult {
        TriggerResult(std::ptr::null_mut())
    }
}

// SAFETY: a trigger returns the address of its tuple as a datum.
unsafe impl BoxRet for TriggerResult {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: the tuple outlives the call: it is PostgreSQL's own, or in the trigger's memory context.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.0)) }
    }
}

// SAFETY: used as the result of trigger functions only.
unsafe impl SqlTranslatable for TriggerResult {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(TriggerResult);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Err(ArgumentError::NotValidAsArgument("TriggerResult"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::As("trigger")));
}
