//! Results of functions: an array of ids, one row as a composite, or many as a set.

use pgrx::{
    callconv::{Arg, ArgAbi, BoxRet, FcInfo},
    datum::Datum,
    pg_sys, pgrx_resolved_type,
    pgrx_sql_entity_graph::metadata::{
        ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
    },
};
use uuid::Uuid;

use crate::store::{rows::Row, value::Value};

/// A value that can be returned as a row.
pub trait ToRow {
    /// Passes the row's values, in the order of its columns, to `take`.
    fn with_row<R>(&self, take: impl FnOnce(&[Value]) -> R) -> R;
}

/// Ids, for a function that returns a `uuid[]`.
pub struct Uuids(pub Vec<Uuid>);

// SAFETY: returns an array in the current memory context, with the type that RETURN_SQL declares.
unsafe impl BoxRet for Uuids {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match Value::Uuids(&self.0).datum() {
            // SAFETY: the function returns uuid[].
            Some(array) => unsafe { fcinfo.return_raw_datum(array) },
            None => fcinfo.return_null(),
        }
    }
}

// SAFETY: as above.
unsafe impl SqlTranslatable for Uuids {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Uuids);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Err(ArgumentError::NotValidAsArgument("Uuids"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::As("uuid[]")));
}

/// One row, for a function that returns a composite type.
pub struct Composite<T>(pub T);

// SAFETY: forms the tuple by the descriptor of the function that returns it.
unsafe impl<T: ToRow> BoxRet for Composite<T> {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: there is a value for each column, as fill_datums asserts; the tuple is in the caller's memory
        // context.
        unsafe {
            let desc = pg_sys::BlessTupleDesc(result_type(fcinfo.as_mut_ptr()));
            let mut datums = vec![pg_sys::Datum::null(); (*desc).natts as usize];
            let mut nulls = vec![true; datums.len()];
            let tuple = self.0.with_row(|row| {
                fill_datums(row, &mut datums, &mut nulls);
                pg_sys::heap_form_tuple(desc, datums.as_mut_ptr(), nulls.as_mut_ptr())
            });
            fcinfo.return_raw_datum(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data))
        }
    }
}

// SAFETY: each function that returns one has handwritten SQL.
unsafe impl<T> SqlTranslatable for Composite<T> {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Composite<()>);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Err(ArgumentError::NotValidAsArgument("Composite"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::As("record")));
}

/// The set that a function returns. The function gets it as an argument, which SQL does not see, fills it and returns
/// it.
///
/// It is materialized: to look up the descriptor for each row would cost more than the rows do.
pub struct ResultSet {
    store: *mut pg_sys::Tuplestorestate,
    desc: pg_sys::TupleDesc,
    datums: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl ResultSet {
    /// Adds a row, with a value for each column.
    pub fn push(&mut self, row: &[Value]) {
        fill_datums(row, &mut self.datums, &mut self.nulls);
        // SAFETY: there is a value for each column of the descriptor; the store copies them.
        unsafe {
            pg_sys::tuplestore_putvalues(self.store, self.desc, self.datums.as_mut_ptr(), self.nulls.as_mut_ptr());
        }
    }

    /// Adds a row of a statement that has the same columns.
    pub fn push_row(&mut self, row: Row) {
        // SAFETY: the store copies the tuple.
        unsafe { pg_sys::tuplestore_puttuple(self.store, row.tuple()) };
    }

    /// Returns an empty set for a call.
    ///
    /// # Safety
    /// `fcinfo` is a call of a function that returns a set of rows.
    unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> ResultSet {
        // SAFETY: as the caller promises. The executor expects the store and the descriptor in the query's memory
        // context, and frees them with it.
        unsafe {
            let info = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            let materialize = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            if info.is_null() || (*info).allowedModes as u32 & materialize == 0 {
                pgrx::error!("set-valued function called in context that cannot accept a set");
            }
            let previous = pg_sys::MemoryContextSwitchTo((*(*info).econtext).ecxt_per_query_memory);
            let desc = result_type(fcinfo);
            let random = (*info).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random != 0;
            let store = pg_sys::tuplestore_begin_heap(random, false, pg_sys::work_mem);
            (*info).returnMode = materialize;
            (*info).setResult = store;
            (*info).setDesc = desc;
            pg_sys::MemoryContextSwitchTo(previous);
            let columns = (*desc).natts as usize;
            ResultSet {
                store,
                desc,
                datums: vec![pg_sys::Datum::null(); columns],
                nulls: vec![true; columns],
            }
        }
    }
}

// SAFETY: a virtual argument, made from the call frame that pgrx passes to virtual arguments.
unsafe impl<'fcx> ArgAbi<'fcx> for ResultSet {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: each function that takes one is declared to return a set.
        unsafe { ResultSet::new(<pg_sys::FunctionCallInfo as ArgAbi>::unbox_arg_unchecked(arg)) }
    }

    fn is_virtual_arg() -> bool {
        true
    }
}

// SAFETY: the set is in the ReturnSetInfo of the call already, and the datum is ignored.
unsafe impl BoxRet for ResultSet {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        fcinfo.return_null()
    }
}

// SAFETY: not an argument in SQL; each function that returns one has handwritten SQL.
unsafe impl SqlTranslatable for ResultSet {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(ResultSet);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::Skip);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::As("record")));
}

/// Stores a row's values as datums. Panics where there is not a value for each column.
fn fill_datums(row: &[Value], datums: &mut [pg_sys::Datum], nulls: &mut [bool]) {
    assert_eq!(row.len(), datums.len());
    for ((value, datum), null) in row.iter().zip(datums).zip(nulls) {
        let filled = value.datum();
        *null = filled.is_none();
        *datum = filled.unwrap_or(pg_sys::Datum::null());
    }
}

/// Returns the descriptor of the rows that a function returns. Errors: 55000 where it does not return rows.
///
/// # Safety
/// `fcinfo` is a call of a function that returns rows.
unsafe fn result_type(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::TupleDesc {
    let mut desc = std::ptr::null_mut();
    // SAFETY: as the caller promises.
    unsafe {
        let class = pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut desc);
        if class != pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE {
            crate::pg::errors::damaged_install();
        }
    }
    desc
}
