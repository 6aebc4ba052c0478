//! PostgreSQL's own timeouts, which pgrx does not bind.

use std::time::Duration;

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    // utils/timeout.h
    fn enable_timeout_after(id: i32, delay_ms: i32);
    fn disable_timeout(id: i32, keep_indicator: bool);
}

/// `STATEMENT_TIMEOUT` of `enum TimeoutId`, the same number in every supported version.
const STATEMENT_TIMEOUT: i32 = 3;

/// Cancels whatever this process executes after `limit`, with 57014, until [`unlimit`] is called.
pub fn limit(limit: Duration) {
    let delay = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: connecting to a database has registered the timeout, whose handler raises nothing by itself.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| enable_timeout_after(STATEMENT_TIMEOUT, delay)) };
}

/// Ends what [`limit`] began. Does nothing where there is no limit.
pub fn unlimit() {
    // SAFETY: as above.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| disable_timeout(STATEMENT_TIMEOUT, false)) };
}
