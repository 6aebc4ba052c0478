//! What the worker shows of itself: in `pg_stat_activity`, and in the log.

use std::{
    ffi::CStr,
    time::{Duration, Instant},
};

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys, pg_sys::panic::ErrorReport};

use crate::settings;

/// The least time between two warnings that the roster is full.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The warning that the roster is full, once in a while.
#[derive(Default)]
pub struct OverflowWarning {
    warned_at: Option<Instant>,
}

impl OverflowWarning {
    pub fn warn(&mut self) {
        let now = Instant::now();
        if self.warned_at.is_some_and(|at| now - at < WARNING_INTERVAL) {
            return;
        }
        self.warned_at = Some(now);
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!(
                "number of sessions exceeds presence.max_sessions ({})",
                settings::max_sessions()
            ),
            pgrx::function_name!(),
        )
        .set_detail("Statuses stay correct, but calls read user_sessions for sessions that are not in shared memory.")
        .set_hint("Increase presence.max_sessions and restart the server.")
        .report(PgLogLevel::WARNING);
    }
}

/// Sets what `pg_stat_activity` shows; `None` is idle.
pub fn report_activity(activity: Option<&CStr>) {
    // SAFETY: copies the text into this process's entry.
    unsafe {
        match activity {
            Some(activity) => pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr()),
            None => pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null()),
        }
    }
}
