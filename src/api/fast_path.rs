//! The fast_path: how a statement that is one heartbeat, and nothing else, is run.
//!
//! `SELECT heartbeat($1)` is what clients send all the time. To call a function, PostgreSQL reads its row, its rights and
//! its address from the catalogs anew for each statement, which takes about as long as the beat. So when such a statement is
//! started, its plan is exchanged for a custom scan that beats; everything about it, its plan's cache and its result stay
//! as they are. Only where the outcome is certain to be the same: [`identity::may_call`] knows the function and the caller's
//! right, nobody watches calls of functions, and the statement is not EXPLAINed. Everywhere else PostgreSQL calls the
//! function, which is also how the right is learnt.
//!
//! While the executor is set up, memory fetches what the beat will need: see [`crate::roster::Tenant::prefetch_slot`].
//!
//! `start` is run for every statement of the server. An error of PostgreSQL jumps over its frame, so nothing in it has
//! to be dropped; and it cannot panic.

use std::{cell::Cell, ffi::c_int, mem::offset_of, ptr};

use pgrx::{pg_guard, pg_sys};
use uuid::Uuid;

use super::heartbeat;
use crate::{
    identity,
    pg::{compat, process_local::Local},
    session,
};

/// The hook that was there before ours.
static PREVIOUS_HOOK: Local<Cell<pg_sys::ExecutorStart_hook_type>> = Local::new(Cell::new(None));

/// What a statement is run by instead. It lies in the memory that the statement's start is called in, which can outlive the
/// statement by far, and so is freed with the scan.
#[repr(C)]
struct FastPath {
    statement: pg_sys::PlannedStmt,
    scan: pg_sys::CustomScan,
    /// The scan's one column, with the name it has in the statement.
    columns: pg_sys::List,
    cell: pg_sys::ListCell,
    entry: pg_sys::TargetEntry,
    value: pg_sys::Var,
    session: Option<Uuid>,
}

/// The scan while it is executed.
#[repr(C)]
struct State {
    node: pg_sys::CustomScanState,
    done: bool,
}

static SCAN: Local<pg_sys::CustomScanMethods> = Local::new(pg_sys::CustomScanMethods {
    CustomName: c"heartbeat".as_ptr(),
    CreateCustomScanState: Some(create),
});

static EXECUTION: Local<pg_sys::CustomExecMethods> = Local::new(pg_sys::CustomExecMethods {
    CustomName: c"heartbeat".as_ptr(),
    BeginCustomScan: Some(begin),
    ExecCustomScan: Some(execute),
    EndCustomScan: Some(end),
    ReScanCustomScan: Some(again),
    MarkPosCustomScan: None,
    RestrPosCustomScan: None,
    EstimateDSMCustomScan: None,
    InitializeDSMCustomScan: None,
    ReInitializeDSMCustomScan: None,
    InitializeWorkerCustomScan: None,
    ShutdownCustomScan: None,
    ExplainCustomScan: None,
});

/// Begins to look at the statements that are started. To be called once, from `_PG_init`.
pub fn init() {
    // SAFETY: hooks are set while the server starts, by the one thread there is.
    unsafe {
        PREVIOUS_HOOK.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(start);
    }
}

unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: PostgreSQL gives a query that is about to be started.
    let beat = match unsafe { match_heartbeat(&*query, flags) } {
        Some(beat) if identity::may_call(beat.function) && !compat::function_calls_are_observed() => beat,
        // SAFETY: as it was given to us.
        _ => return unsafe { call_next(query, flags) },
    };
    if let Some(session) = &beat.session {
        session::prefetch_heartbeat(session);
    }
    // SAFETY: the fast_path is written as a whole before anybody sees it, and lies where the query lies, in memory that
    // outlives the execution. The statement is given back, so that whoever looks at the query finds what he knows.
    unsafe {
        let statement = (*query).plannedstmt;
        let fast_path = compat::allocate(size_of::<FastPath>()).cast::<FastPath>();
        FastPath::write(fast_path, &*statement, &beat);
        (*query).plannedstmt = &mut (*fast_path).statement;
        call_next(query, flags);
        (*query).plannedstmt = statement;
    }
    if let Some(session) = &beat.session {
        session::prefetch_slot(session);
    }
}

/// What would have been called without us.
///
/// # Safety
/// As for the hook itself.
#[inline(always)]
unsafe fn call_next(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: as the caller promises.
    unsafe {
        match PREVIOUS_HOOK.get() {
            Some(next) => next(query, flags),
            None => compat::standard_executor_start(query, flags),
        }
    }
}

/// The call that a statement consists of.
struct HeartbeatCall<'a> {
    function: pg_sys::Oid,
    session: Option<Uuid>,
    column: &'a pg_sys::TargetEntry,
}

/// Finds out whether a statement is `SELECT function(uuid)`, its argument a constant or a parameter, and nothing else.
///
/// # Safety
/// The query is one that PostgreSQL is about to start.
#[inline(always)]
unsafe fn match_heartbeat(query: &pg_sys::QueryDesc, flags: c_int) -> Option<HeartbeatCall<'_>> {
    // SAFETY: each node is looked at as what its tag says it is, and a planned statement has no other.
    unsafe {
        let statement = query.plannedstmt.as_ref()?;
        let plan = node::<pg_sys::Result>(statement.planTree.cast(), pg_sys::NodeTag::T_Result)?;
        let column = only::<pg_sys::TargetEntry>(plan.plan.targetlist)?;
        let call = node::<pg_sys::FuncExpr>(column.expr.cast(), pg_sys::NodeTag::T_FuncExpr)?;
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
        let argument = only::<pg_sys::Node>(call.args)?;
        let value = match argument.type_ {
            pg_sys::NodeTag::T_Const => constant(&*ptr::from_ref(argument).cast())?,
            pg_sys::NodeTag::T_Param => parameter(&*ptr::from_ref(argument).cast(), query)?,
            _ => return None,
        };
        Some(HeartbeatCall {
            function: call.funcid,
            // A uuid is sixteen bytes, wherever they lie.
            session: value.map(|datum| Uuid::from_bytes(*datum.cast_mut_ptr::<[u8; 16]>())),
            column,
        })
    }
}

/// The value of a constant uuid; `Some(None)` is NULL.
#[inline(always)]
fn constant(constant: &pg_sys::Const) -> Option<Option<pg_sys::Datum>> {
    (constant.consttype == pg_sys::UUIDOID).then_some((!constant.constisnull).then_some(constant.constvalue))
}

/// The value of a parameter that is a uuid and there already; `Some(None)` is NULL.
///
/// # Safety
/// The query's parameters are as PostgreSQL gives them.
#[inline(always)]
unsafe fn parameter(parameter: &pg_sys::Param, query: &pg_sys::QueryDesc) -> Option<Option<pg_sys::Datum>> {
    // SAFETY: there are `numParams` values, numbered from 1, unless they are fetched one by one.
    unsafe {
        let values = query.params.as_ref()?;
        let is_there = parameter.paramkind == pg_sys::ParamKind::PARAM_EXTERN
            && (1..=values.numParams).contains(&parameter.paramid)
            && values.paramFetch.is_none();
        if !is_there {
            return None;
        }
        let value = &*values.params.as_ptr().add(parameter.paramid as usize - 1);
        (value.ptype == pg_sys::UUIDOID).then_some((!value.isnull).then_some(value.value))
    }
}

/// A node as what its tag says it is.
///
/// # Safety
/// `node` is null or a node, and `T` is what has the tag `tag`.
#[inline(always)]
unsafe fn node<'a, T>(node: *const pg_sys::Node, tag: pg_sys::NodeTag) -> Option<&'a T> {
    // SAFETY: as the caller promises.
    unsafe { (node.as_ref()?.type_ == tag).then(|| &*node.cast::<T>()) }
}

/// The only element of a list.
///
/// # Safety
/// `list` is null or a list of pointers to `T`.
#[inline(always)]
unsafe fn only<'a, T>(list: *const pg_sys::List) -> Option<&'a T> {
    // SAFETY: as the caller promises.
    unsafe {
        let list = list.as_ref()?;
        (list.length == 1).then(|| &*(*list.elements).ptr_value.cast::<T>())
    }
}

impl FastPath {
    /// Writes the fast_path of a statement.
    ///
    /// # Safety
    /// `place` is memory for it, which stays where it is.
    #[inline(always)]
    unsafe fn write(place: *mut FastPath, statement: &pg_sys::PlannedStmt, beat: &HeartbeatCall) {
        // SAFETY: the parts point at one another within the place, or at what outlives it: the statement, and statics.
        unsafe {
            let mut scan = pg_sys::CustomScan::default();
            let plan = &mut scan.scan.plan;
            plan.type_ = pg_sys::NodeTag::T_CustomScan;
            plan.plan_rows = 1.0;
            plan.targetlist = &raw mut (*place).columns;
            // What the column is made of, for whoever describes the plan.
            scan.custom_scan_tlist = (*statement.planTree).targetlist;
            scan.methods = &raw const *SCAN;

            let mut value = pg_sys::Var::default();
            value.xpr.type_ = pg_sys::NodeTag::T_Var;
            value.varno = pg_sys::INDEX_VAR as _;
            value.varattno = 1;
            value.vartype = pg_sys::TEXTOID;
            value.vartypmod = -1;
            value.varcollid = pg_sys::DEFAULT_COLLATION_OID;
            value.location = -1;

            place.write(FastPath {
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
                    ..*beat.column
                },
                value,
                session: beat.session,
            });
        }
    }
}

unsafe extern "C-unwind" fn create(_: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: an error of the allocation jumps over this frame, in which nothing has to be dropped.
    unsafe {
        let mut node = pg_sys::CustomScanState::default();
        node.ss.ps.type_ = pg_sys::NodeTag::T_CustomScanState;
        node.methods = &raw const *EXECUTION;
        let state = compat::allocate(size_of::<State>()).cast::<State>();
        state.write(State { node, done: false });
        state.cast()
    }
}

/// The fast_path whose scan is executed.
///
/// # Safety
/// The state is one that [`create`] made, and has not ended.
#[inline(always)]
unsafe fn fast_path_of(node: *mut pg_sys::CustomScanState) -> *mut FastPath {
    // SAFETY: the scan is part of a fast_path, as nobody else has these methods, and a started plan is not copied.
    unsafe {
        let scan = (*node).ss.ps.plan;
        scan.byte_sub(offset_of!(FastPath, scan)).cast()
    }
}

unsafe extern "C-unwind" fn begin(_: *mut pg_sys::CustomScanState, _: *mut pg_sys::EState, _: i32) {}

#[pg_guard]
unsafe extern "C-unwind" fn execute(node: *mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the state is one that `create` made, of a scan with one column.
    unsafe {
        let state = &mut *node.cast::<State>();
        if state.done {
            return ptr::null_mut();
        }
        state.done = true;
        let answer = heartbeat::beat((*fast_path_of(node)).session);
        let slot = (*node).ss.ss_ScanTupleSlot;
        *(*slot).tts_values = answer.datum();
        *(*slot).tts_isnull = false;
        compat::store_virtual_tuple(slot)
    }
}

unsafe extern "C-unwind" fn end(node: *mut pg_sys::CustomScanState) {
    // SAFETY: `start` allocated it, and the executor is done with plan and statement when it ends their only node. What is
    // left after an error goes with the memory it lies in.
    unsafe { compat::free(fast_path_of(node).cast()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn again(node: *mut pg_sys::CustomScanState) {
    // SAFETY: as in `execute`.
    unsafe {
        (*node.cast::<State>()).done = false;
        pg_sys::ExecClearTuple((*node).ss.ss_ScanTupleSlot);
    }
}
