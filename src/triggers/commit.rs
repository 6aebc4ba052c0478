//! Commit and rollback: pending writes are applied to the roster, or discarded.
//!
//! Nothing that runs after the commit can fail: it takes locks and stores words. PREPARE TRANSACTION is refused
//! beforehand.

use pgrx::{pg_guard, pg_sys};

use super::{held, pending};
use crate::{
    pg::{errors, fault_point},
    roster, settings,
};

/// Registers the callbacks, in this process and, by fork, in all that it starts.
pub fn register() {
    // SAFETY: both callbacks live as long as the library.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::*;
    if event == XACT_EVENT_ABORT {
        held::cancel();
    }
    if pending::is_empty() {
        return;
    }
    match event {
        // COMMIT PREPARED has no callback, so the writes could never be applied.
        XACT_EVENT_PRE_PREPARE => errors::prepare_refused(),
        XACT_EVENT_PRE_COMMIT => pending::supersede_visibility(),
        XACT_EVENT_COMMIT => {
            fault_point::delay("commit");
            fault_point::reach("commit");
            fault_point::pause("commit");
            pending::apply(settings::active_timeout());
            roster::clear_inflight();
        }
        XACT_EVENT_ABORT => {
            pending::discard_from(0);
            roster::clear_inflight();
        }
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    subtransaction: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        held::cancel();
        pending::discard_from(subtransaction);
    }
}
