//! The fast path for a statement that is one heartbeat and nothing else.
//!
//! Clients send `SELECT heartbeat($1)` all the time. To call a function, each statement reads the function's row,
//! rights and address from the catalogs, which takes about as long as the heartbeat itself. So when such a statement
//! starts, its plan is replaced by a custom scan that records the heartbeat. The plan cache and the result are
//! unaffected. The fast path is taken only where the outcome is certain to be the same: [`identity::may_call`] knows
//! the function and the caller's right, function calls are not observed, and the statement is not run by EXPLAIN.
//! Otherwise PostgreSQL calls the function, which also records the right for the next time.
//!
//! What the heartbeat reads is prefetched while the executor starts.
//!
//! The same hook serves [`trust`], for all other statements: each hook costs every statement a call.
//!
//! `executor_start` runs for every statement of the server. An error of PostgreSQL jumps over its frame, so nothing in
//! it may need to be dropped, and it must not panic.

use std::{cell::Cell, ffi::c_int, mem::offset_of, ptr};

use pgrx::{pg_guard, pg_sys};
use uuid::Uuid;

use super::heartbeat;
use crate::{
    identity,
    pg::{compat, process_local::ProcessLocal},
    session,
    store::trust,
};

/// The hook that was installed before ours.
static PREVIOUS_HOOK: ProcessLocal<Cell<pg_sys::ExecutorStart_hook_type>> = ProcessLocal::new(Cell::new(None));

/// The planned statement that replaces the original one. It is allocated in the memory context in which the statement
/// starts, which may live far longer than the statement, and so is freed when the scan ends.
#[repr(C)]
struct HeartbeatPlan {
    statement: pg_sys::PlannedStmt,
    scan: pg_sys::CustomScan,
    /// The target list: one column, with its name in the original statement.
    columns: pg_sys::List,
    cell: pg_sys::ListCell,
    entry: pg_sys::TargetEntry,
    value: pg_sys::Var,
    session: Option<Uuid>,
}

/// The execution state of the scan.
#[repr(C)]
struct HeartbeatScanState {
    node: pg_sys::CustomScanState,
    done: bool,
}

static SCAN_METHODS: ProcessLocal<pg_sys::CustomScanMethods> = ProcessLocal::new(pg_sys::CustomScanMethods {
    CustomName: c"heartbeat".as_ptr(),
    CreateCustomScanState: Some(create_scan_state),
});

static EXEC_METHODS: ProcessLocal<pg_sys::CustomExecMethods> = ProcessLocal::new(pg_sys::CustomExecMethods {
    CustomName: c"heartbeat".as_ptr(),
    BeginCustomScan: Some(begin_scan),
    ExecCustomScan: Some(exec_scan),
    EndCustomScan: Some(end_scan),
    ReScanCustomScan: Some(rescan),
    MarkPosCustomScan: None,
    RestrPosCustomScan: None,
    EstimateDSMCustomScan: None,
    InitializeDSMCustomScan: None,
    ReInitializeDSMCustomScan: None,
    InitializeWorkerCustomScan: None,
    ShutdownCustomScan: None,
    ExplainCustomScan: None,
});

/// Installs the hook. Call once, from `_PG_init`.
pub fn init() {
    // SAFETY: the server is starting, with one thread, so nothing runs the hook meanwhile.
    unsafe {
        PREVIOUS_HOOK.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(executor_start);
    }
}

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: PostgreSQL passes a query that is about to start.
    let call = match unsafe { as_heartbeat_call(&*query, flags) } {
        Some(call) if identity::may_call(call.function) && !compat::function_calls_are_observed() => call,
        // SAFETY: the arguments are those of the hook.
        _ => unsafe {
            next_executor_start(query, flags);
            return trust::executor_started(query);
        },
    };
    if let Some(session) = &call.session {
        session::prefetch_heartbeat(session);
    }
    // SAFETY: the new plan is complete before the executor reads it, and is allocated in the memory context of the
    // query, which outlives the execution. plannedstmt is restored, so that other hooks see the original plan.
    unsafe {
        let statement = (*query).plannedstmt;
        let plan = compat::allocate(size_of::<HeartbeatPlan>()).cast::<HeartbeatPlan>();
        HeartbeatPlan::write(plan, &*statement, &call);
        (*query).plannedstmt = &mut (*plan).statement;
        next_executor_start(query, flags);
        (*query).plannedstmt = statement;
    }
    if let Some(session) = &call.session {
        session::prefetch_slot(session);
    }
}

/// Calls the previous hook, or else the standard function.
///
/// # Safety
/// As for the hook itself.
#[inline(always)]
unsafe fn next_executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: as the caller promises.
    unsafe {
        match PREVIOUS_HOOK.get() {
            Some(hook) => hook(query, flags),
            None => compat::standard_executor_start(query, flags),
        }
    }
}

/// The heartbeat that a statement consists of.
struct HeartbeatCall<'a> {
    function: pg_sys::Oid,
    session: Option<Uuid>,
    column: &'a pg_sys::TargetEntry,
}

/// Returns the call if a statement is `SELECT function(uuid)`, with a constant or a parameter as its argument, and
/// nothing else. Whether the function is `heartbeat()` remains to be checked.
///
/// # Safety
/// PostgreSQL is about to start the query.
#[inline(always)]
unsafe fn as_heartbeat_call(query: &pg_sys::QueryDesc, flags: c_int) -> Option<HeartbeatCall<'_>> {
    // SAFETY: each node is read as the type of its tag, and the nodes and lists of a planned statement are valid.
    unsafe {
        let statement = query.plannedstmt.as_ref()?;
        let plan = downcast::<pg_sys::Result>(statement.planTree.cast(), pg_sys::NodeTag::T_Result)?;
        let column = only_element::<pg_sys::TargetEntry>(plan.plan.targetlist)?;
        let call = downcast::<pg_sys::FuncExpr>(column.expr.cast(), pg_sys::NodeTag::T_FuncExpr)?;
        if call.funcresulttype != pg_sys::TEXTOID
            || !plan.resconstantqual.is_null()
            || !plan.plan.qual.is_null()
            || !plan.plan.lefttree.is_null()
            || !statement.subplans.is_null()
            || flags != 0
            || query.instrument_options != 0
        {
            return None;
        }
        let argument = only_element::<pg_sys::Node>(call.args)?;
        let value = match argument.type_ {
            pg_sys::NodeTag::T_Const => constant_uuid(&*ptr::from_ref(argument).cast())?,
            pg_sys::NodeTag::T_Param => parameter_uuid(&*ptr::from_ref(argument).cast(), query)?,
            _ => return None,
        };
        Some(HeartbeatCall {
            function: call.funcid,
            // A uuid is 16 bytes, without alignment.
            session: value.map(|datum| Uuid::from_bytes(*datum.cast_mut_ptr::<[u8; 16]>())),
            column,
        })
    }
}

/// Returns the value of a constant if it is a uuid; `Some(None)` is NULL.
#[inline(always)]
fn constant_uuid(constant: &pg_sys::Const) -> Option<Option<pg_sys::Datum>> {
    (constant.consttype == pg_sys::UUIDOID).then_some((!constant.constisnull).then_some(constant.constvalue))
}

/// Returns the value of a parameter if it is a uuid and has been passed with the query; `Some(None)` is NULL.
///
/// # Safety
/// The query's parameters are PostgreSQL's.
#[inline(always)]
unsafe fn parameter_uuid(parameter: &pg_sys::Param, query: &pg_sys::QueryDesc) -> Option<Option<pg_sys::Datum>> {
    // SAFETY: there are `numParams` values, numbered from 1, unless a hook fetches them one by one.
    unsafe {
        let values = query.params.as_ref()?;
        let is_passed = parameter.paramkind == pg_sys::ParamKind::PARAM_EXTERN
            && (1..=values.numParams).contains(&parameter.paramid)
            && values.paramFetch.is_none();
        if !is_passed {
            return None;
        }
        let value = &*values.params.as_ptr().add(parameter.paramid as usize - 1);
        (value.ptype == pg_sys::UUIDOID).then_some((!value.isnull).then_some(value.value))
    }
}

/// Returns a node as a `T` if it has the tag of that type.
///
/// # Safety
/// `node` is null or a node, and `tag` is the tag of `T`.
#[inline(always)]
unsafe fn downcast<'a, T>(node: *const pg_sys::Node, tag: pg_sys::NodeTag) -> Option<&'a T> {
    // SAFETY: as the caller promises.
    unsafe { (node.as_ref()?.type_ == tag).then(|| &*node.cast::<T>()) }
}

/// Returns the element of a list that has only one.
///
/// # Safety
/// `list` is null or a list of pointers to `T`.
#[inline(always)]
unsafe fn only_element<'a, T>(list: *const pg_sys::List) -> Option<&'a T> {
    // SAFETY: as the caller promises.
    unsafe {
        let list = list.as_ref()?;
        (list.length == 1).then(|| &*(*list.elements).ptr_value.cast::<T>())
    }
}

impl HeartbeatPlan {
    /// Writes the plan that replaces the statement's.
    ///
    /// # Safety
    /// `place` is memory for the plan, which is not moved.
    #[inline(always)]
    unsafe fn write(place: *mut HeartbeatPlan, statement: &pg_sys::PlannedStmt, call: &HeartbeatCall) {
        // SAFETY: the pointers are to other parts of `place`, or to what outlives it: the statement, and statics.
        unsafe {
            let mut scan = pg_sys::CustomScan::default();
            let plan = &mut scan.scan.plan;
            plan.type_ = pg_sys::NodeTag::T_CustomScan;
            plan.plan_rows = 1.0;
            plan.targetlist = &raw mut (*place).columns;
            // The column's expression, for code that describes the plan.
            scan.custom_scan_tlist = (*statement.planTree).targetlist;
            scan.methods = &raw const *SCAN_METHODS;

            let mut value = pg_sys::Var::default();
            value.xpr.type_ = pg_sys::NodeTag::T_Var;
            value.varno = pg_sys::INDEX_VAR as _;
            value.varattno = 1;
            value.vartype = pg_sys::TEXTOID;
            value.vartypmod = -1;
            value.varcollid = pg_sys::DEFAULT_COLLATION_OID;
            value.location = -1;

            place.write(HeartbeatPlan {
                statement: pg_sys::PlannedStmt {
                    planTree: (&raw mut (*place).scan).cast(),
                    ..*statement
                },
                scan,
                columns: pg_sys::List {
                    type_: pg_sys::NodeTag::T_List,
                    length: 1,
                    max_length: 1,
                    elements: &raw mut (*place).cell,
                    ..Default::default()
                },
                cell: pg_sys::ListCell {
                    ptr_value: (&raw mut (*place).entry).cast(),
                },
                entry: pg_sys::TargetEntry {
                    expr: (&raw mut (*place).value).cast(),
                    ..*call.column
                },
                value,
                session: call.session,
            });
        }
    }
}

unsafe extern "C-unwind" fn create_scan_state(_: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: an error in the allocation jumps over this frame, in which nothing needs to be dropped.
    unsafe {
        let mut node = pg_sys::CustomScanState::default();
        node.ss.ps.type_ = pg_sys::NodeTag::T_CustomScanState;
        node.methods = &raw const *EXEC_METHODS;
        let state = compat::allocate(size_of::<HeartbeatScanState>()).cast::<HeartbeatScanState>();
        state.write(HeartbeatScanState { node, done: false });
        state.cast()
    }
}

/// Returns the plan of a scan.
///
/// # Safety
/// [`create_scan_state`] made the state, and the scan has not ended.
#[inline(always)]
unsafe fn plan_of(node: *mut pg_sys::CustomScanState) -> *mut HeartbeatPlan {
    // SAFETY: the scan is part of a HeartbeatPlan: no other scan has these methods, and nothing copies a plan that has
    // started.
    unsafe {
        let scan = (*node).ss.ps.plan;
        scan.byte_sub(offset_of!(HeartbeatPlan, scan)).cast()
    }
}

unsafe extern "C-unwind" fn begin_scan(_: *mut pg_sys::CustomScanState, _: *mut pg_sys::EState, _: i32) {}

#[pg_guard]
unsafe extern "C-unwind" fn exec_scan(node: *mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: create_scan_state made the state, of a scan with one column.
    unsafe {
        let state = &mut *node.cast::<HeartbeatScanState>();
        if state.done {
            return ptr::null_mut();
        }
        state.done = true;
        let answer = heartbeat::answer((*plan_of(node)).session);
        let slot = (*node).ss.ss_ScanTupleSlot;
        *(*slot).tts_values = answer.datum();
        *(*slot).tts_isnull = false;
        compat::store_virtual_tuple(slot)
    }
}

unsafe extern "C-unwind" fn end_scan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: executor_start allocated the plan, and the executor no longer reads it when it ends the plan's only node.
    // After an error, the plan is freed with its memory context.
    unsafe { compat::free(plan_of(node).cast()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn rescan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: create_scan_state made the state.
    unsafe {
        (*node.cast::<HeartbeatScanState>()).done = false;
        pg_sys::ExecClearTuple((*node).ss.ss_ScanTupleSlot);
    }
}
