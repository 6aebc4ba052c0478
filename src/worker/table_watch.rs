//! When the worker reads again whether its tables are the ones that it knows.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::pg::{compat, installed};

/// The longest time between two reads.
const INTERVAL: Duration = Duration::from_secs(40);

/// What was seen when the tables were last read.
#[derive(Default)]
pub struct TableWatch {
    read_at: Option<Instant>,
    /// What can be seen of changes without a transaction.
    seen: Option<(u32, i64)>,
}

impl TableWatch {
    /// Whether there is reason to read whether the extension and its feed state, in the table `state`, are the same as
    /// before: something about our tables has changed, or rows of `_feed_state` may have come or gone. Every write of
    /// changes checks the state, too. What nothing of this shows, as a plain UPDATE, is found out after a while. To be
    /// followed by the read.
    pub fn must_check(&mut self, state: pg_sys::Oid) -> bool {
        // SAFETY: outside a transaction, as apply workers do that have nothing to apply.
        unsafe { pg_sys::AcceptInvalidationMessages() };
        let seen = (installed::changes(), compat::rows_come_and_gone(state));
        let now = Instant::now();
        let is_due = self.read_at.is_none_or(|at| now - at >= INTERVAL);
        let has_reason = is_due || self.seen != Some(seen);
        if has_reason {
            self.read_at = Some(now);
            self.seen = Some(seen);
        }
        has_reason
    }

    /// Has the tables read again, after they could not be.
    pub fn check_again(&mut self) {
        self.read_at = None;
    }
}
