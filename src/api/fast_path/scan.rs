//! The custom scan that takes the place of a statement's plan: it makes one call, and returns its result.

use std::{ffi::c_void, mem::offset_of, ptr};

use pgrx::{pg_guard, pg_sys};
use uuid::Uuid;

use super::call::Call;
use crate::{
    api::heartbeat,
    pg::{compat, process_local::ProcessLocal},
};

/// What a scan runs.
#[derive(Clone, Copy)]
pub enum Run {
    /// A heartbeat of this session, compiled into the scan.
    Heartbeat(Option<Uuid>),
    /// The function at this address.
    Function(pg_sys::PGFunction),
}

/// The planned statement that replaces the original one. It is allocated in the memory context in which the statement
/// starts, which may live far longer than the statement, and so is freed when the scan ends.
#[repr(C)]
pub struct CallPlan {
    pub statement: pg_sys::PlannedStmt,
    scan: pg_sys::CustomScan,
    /// The target list: one column, with its name in the original statement.
    columns: pg_sys::List,
    cell: pg_sys::ListCell,
    entry: pg_sys::TargetEntry,
    value: pg_sys::Var,
    run: Run,
    frame: Frame,
}

/// The frame of a call with one argument.
#[repr(C)]
struct Frame {
    base: pg_sys::FunctionCallInfoBaseData,
    argument: pg_sys::NullableDatum,
}

// The arguments follow the frame.
const _: () = assert!(offset_of!(Frame, argument) == offset_of!(pg_sys::FunctionCallInfoBaseData, args));

/// The execution state of the scan.
#[repr(C)]
struct CallScanState {
    node: pg_sys::CustomScanState,
    done: bool,
}

const NAME: *const std::ffi::c_char = c"presence call".as_ptr();

static SCAN_METHODS: ProcessLocal<pg_sys::CustomScanMethods> = ProcessLocal::new(pg_sys::CustomScanMethods {
    CustomName: NAME,
    CreateCustomScanState: Some(create_scan_state),
});

static HEARTBEAT_METHODS: ProcessLocal<pg_sys::CustomExecMethods> = ProcessLocal::new(exec_methods(exec_heartbeat));
static FUNCTION_METHODS: ProcessLocal<pg_sys::CustomExecMethods> = ProcessLocal::new(exec_methods(exec_function));

type Exec = unsafe extern "C-unwind" fn(*mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot;

const fn exec_methods(exec: Exec) -> pg_sys::CustomExecMethods {
    pg_sys::CustomExecMethods {
        CustomName: NAME,
        BeginCustomScan: Some(begin_scan),
        ExecCustomScan: Some(exec),
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
    }
}

impl CallPlan {
    /// Writes the plan that replaces the statement's.
    ///
    /// # Safety
    /// `place` is memory for the plan, which is not moved.
    #[inline(always)]
    pub unsafe fn write(place: *mut CallPlan, statement: &pg_sys::PlannedStmt, call: &Call, run: Run) {
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
            value.vartype = call.expression.funcresulttype;
            value.vartypmod = -1;
            value.varcollid = call.expression.funccollid;
            value.location = -1;

            place.write(CallPlan {
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
                run,
                frame: Frame {
                    base: pg_sys::FunctionCallInfoBaseData {
                        fncollation: call.expression.inputcollid,
                        nargs: 1,
                        ..Default::default()
                    },
                    argument: call.argument,
                },
            });
        }
    }
}

unsafe extern "C-unwind" fn create_scan_state(scan: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: an error in the allocation jumps over this frame, in which nothing needs to be dropped.
    unsafe {
        let mut node = pg_sys::CustomScanState::default();
        node.ss.ps.type_ = pg_sys::NodeTag::T_CustomScanState;
        node.methods = match (*plan_of(scan)).run {
            Run::Heartbeat(_) => &raw const *HEARTBEAT_METHODS,
            Run::Function(_) => &raw const *FUNCTION_METHODS,
        };
        let state = compat::allocate(size_of::<CallScanState>()).cast::<CallScanState>();
        state.write(CallScanState { node, done: false });
        state.cast()
    }
}

/// Returns the whole that a scan is part of.
///
/// # Safety
/// The scan is part of a [`CallPlan`], and has not ended: no other scan has these methods, and nothing copies a plan that
/// has started.
#[inline(always)]
unsafe fn plan_of(scan: *mut pg_sys::CustomScan) -> *mut CallPlan {
    // SAFETY: as the caller promises.
    unsafe { scan.byte_sub(offset_of!(CallPlan, scan)).cast() }
}

/// The same, of the scan's execution.
///
/// # Safety
/// As above; [`create_scan_state`] made the node.
#[inline(always)]
unsafe fn plan_of_node(node: *mut pg_sys::CustomScanState) -> *mut CallPlan {
    // SAFETY: as the caller promises.
    unsafe { plan_of((*node).ss.ps.plan.cast()) }
}

unsafe extern "C-unwind" fn begin_scan(_: *mut pg_sys::CustomScanState, _: *mut pg_sys::EState, _: i32) {}

/// Returns whether a scan still has its row to return, which it has once.
///
/// # Safety
/// [`create_scan_state`] made the node.
#[inline(always)]
unsafe fn is_first(node: *mut pg_sys::CustomScanState) -> bool {
    // SAFETY: as the caller promises.
    unsafe { !std::mem::replace(&mut (*node.cast::<CallScanState>()).done, true) }
}

/// Returns the row with this value.
///
/// # Safety
/// [`create_scan_state`] made the node, of a scan with one column.
#[inline(always)]
unsafe fn row(node: *mut pg_sys::CustomScanState, value: pg_sys::Datum, is_null: bool) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: as the caller promises.
    unsafe {
        let slot = (*node).ss.ss_ScanTupleSlot;
        *(*slot).tts_values = value;
        *(*slot).tts_isnull = is_null;
        compat::store_virtual_tuple(slot)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn exec_heartbeat(node: *mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: create_scan_state made the node, of a scan with one column.
    unsafe {
        match (*plan_of_node(node)).run {
            Run::Heartbeat(session) if is_first(node) => row(node, heartbeat::answer(session).datum(), false),
            _ => ptr::null_mut(),
        }
    }
}

/// An error of the function jumps over this frame, in which nothing needs to be dropped.
unsafe extern "C-unwind" fn exec_function(node: *mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: create_scan_state made the node, of a scan with one column. The function has one argument, of the type of
    // the value in the frame.
    unsafe {
        let plan = plan_of_node(node);
        match (*plan).run {
            Run::Function(Some(function)) if is_first(node) => {
                let frame = &raw mut (*plan).frame.base;
                (*frame).isnull = false;
                let value = function(frame);
                row(node, value, (*frame).isnull)
            }
            _ => ptr::null_mut(),
        }
    }
}

unsafe extern "C-unwind" fn end_scan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: executor_start allocated the plan, and the executor no longer reads it when it ends the plan's only node.
    // After an error, the plan is freed with its memory context.
    unsafe { compat::free(plan_of_node(node).cast::<c_void>()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn rescan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: create_scan_state made the state.
    unsafe {
        (*node.cast::<CallScanState>()).done = false;
        pg_sys::ExecClearTuple((*node).ss.ss_ScanTupleSlot);
    }
}
