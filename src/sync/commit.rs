//! Commit and rollback: pending writes are applied to the roster, or given up.
//!
//! The callbacks that run after the commit cannot fail: they take locks and store words. What may be refused
//! (PREPARE TRANSACTION) is refused before.

use pgrx::{pg_guard, pg_sys};

use super::pending;
use crate::{errors, roster, settings};

/// Registers the callbacks, for this process and (by fork) all it starts.
pub fn register() {
    // SAFETY: both callbacks live as long as the library.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(
    event: pg_sys::XactEvent::Type,
    _arg: *mut std::ffi::c_void,
) {
    use pg_sys::XactEvent::*;
    if pending::is_empty() {
        return;
    }
    match event {
        // There is no callback for COMMIT PREPARED, so the writes could never be told.
        XACT_EVENT_PRE_PREPARE => errors::prepare_refused(),
        XACT_EVENT_COMMIT => {
            #[cfg(debug_assertions)]
            widen_the_window();
            pending::apply(settings::active_timeout());
            roster::stamps_told();
        }
        XACT_EVENT_ABORT => {
            pending::roll_back(0);
            roster::stamps_told();
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
        pending::roll_back(subtransaction);
    }
}

/// For tests, and only in debug builds: after the commit, when other transactions see it and may write the same rows,
/// waits as many milliseconds as `presence_test.commit_delay` says, so that callbacks run the other way round.
#[cfg(debug_assertions)]
fn widen_the_window() {
    // SAFETY: gives null for a setting that nobody has made; otherwise a C string, read before anything else is called.
    let delay = unsafe {
        let value = pg_sys::GetConfigOption(c"presence_test.commit_delay".as_ptr(), true, false);
        if value.is_null() {
            return;
        }
        std::ffi::CStr::from_ptr(value)
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
    };
    if let Some(delay) = delay {
        std::thread::sleep(std::time::Duration::from_millis(delay));
    }
}
