//! What is declared of users, as the worker follows it: when it expires, and whether there is any.
//!
//! Readers decide by the clock, so an expiry needs no statement of anybody. The worker only tells it.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::{
    set_aside::{MAX_TABLE_PAUSE, Pause},
    transaction::{Aborted, Durability, RETRY_AFTER, run_transaction},
    trouble::{self, Work},
};
use crate::{
    pg::installed::Installed,
    roster::Tenant,
    rules::{
        declared::shown,
        status::{Reason, Status},
        time::Micros,
    },
    settings,
    store::{
        declared::{self, Shown},
        feed::UserUpdate,
    },
};

/// The least time between two looks whether the table is empty.
const EMPTY_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// What the worker knows of the table.
pub struct DeclaredWatch {
    /// Users of whom something has expired up to this have been looked at.
    looked_until: Micros,
    /// When something expires next; not later than it does.
    next_expiry: Option<Micros>,
    /// When to look whether the table is empty; `None`: there is no reason to.
    check_empty: Option<Instant>,
    checked_empty: Option<Instant>,
    /// What is known of the triggers that see what is written to the table.
    capture_version: Option<i64>,
    /// Set after the table could not be read.
    pause: Option<Pause>,
}

impl DeclaredWatch {
    /// Everything is to be looked at by the comparison of all users that follows a start.
    pub fn new(tenant: Tenant) -> DeclaredWatch {
        // Nobody has looked after the triggers while there was no worker.
        tenant.set_may_have_declared();
        DeclaredWatch {
            looked_until: tenant.now().wall(),
            next_expiry: None,
            check_empty: Some(Instant::now()),
            checked_empty: None,
            capture_version: None,
            pause: None,
        }
    }

    /// Returns what is shown of these users now, and notes when that expires. To be called in a transaction.
    pub fn shown(&mut self, tenant: Tenant, updates: &[UserUpdate]) -> Vec<Shown> {
        let shown = shown_of(tenant, updates);
        self.expect_expiry(shown.iter().filter_map(|shown| shown.expires_at).min());
        let is_gone = |(update, shown): (&UserUpdate, &Shown)| {
            update.reason == Some(Reason::Declared) && !shown.has_details() && shown.expires_at.is_none()
        };
        if updates.iter().zip(&shown).any(is_gone) {
            self.check_empty_soon();
        }
        shown
    }

    /// Notes that something expires then.
    pub fn expect_expiry(&mut self, at: Option<Micros>) {
        self.next_expiry = [self.next_expiry, at].into_iter().flatten().min();
    }

    /// Returns the users of whom something that is declared has expired since this was called last.
    pub fn find_expired(&mut self, tenant: Tenant) -> Vec<UserUpdate> {
        let now = tenant.synchronize_clock();
        // Where the clock was set back, all are compared, too.
        let after = self.looked_until.min(now.wall());
        self.looked_until = after;
        if self.next_expiry.is_none_or(|at| now.wall() < at) || !self.may_try() {
            return Vec::new();
        }
        let found = run_transaction(Some(tenant), Durability::Lazy, None, |_| {
            let users = declared::expired_users(after, now.wall());
            (users, declared::next_expiry(now.wall()))
        });
        match found {
            Ok((users, next_expiry)) => {
                self.pause = None;
                self.looked_until = now.wall();
                self.next_expiry = next_expiry;
                self.check_empty_soon();
                let timeout = settings::active_timeout();
                let update = |id| tenant.dirty_user(id, Reason::Declared, &now, timeout).into();
                users.iter().map(update).collect()
            }
            Err(aborted) => {
                self.failed(tenant, &aborted);
                Vec::new()
            }
        }
    }

    /// Looks whether the table is empty, where there is reason to: then no reader has to.
    pub fn check_empty(&mut self, tenant: Tenant) {
        let now = Instant::now();
        if self.check_empty.is_none_or(|at| now < at) || !self.may_try() {
            return;
        }
        self.check_empty = None;
        self.checked_empty = Some(now);
        if !tenant.may_have_declared() {
            return;
        }
        let result = run_transaction(Some(tenant), Durability::Lazy, None, |install| {
            if !declared::is_empty() {
                return true;
            }
            // Whoever has written a row holds a lock until its commit is visible, and whoever is about to write one takes
            // it first, and then says so.
            // SAFETY: in a transaction; the table is locked already.
            let is_locked = unsafe { pg_sys::ConditionalLockRelationOid(install.declared, pg_sys::ShareLock as i32) };
            if is_locked && declared::is_empty() && declared::capture_state(&install).1 {
                tenant.set_nothing_declared();
            }
            is_locked
        });
        match result {
            Ok(true) => self.pause = None,
            Ok(false) => self.check_empty = Some(now + RETRY_AFTER),
            Err(aborted) => {
                self.failed(tenant, &aborted);
                self.check_empty = Some(now + RETRY_AFTER);
            }
        }
    }

    /// Has the table looked at, as rows of it have gone.
    pub fn check_empty_soon(&mut self) {
        let now = Instant::now();
        let due = self.checked_empty.map_or(now, |at| at + EMPTY_CHECK_INTERVAL);
        self.check_empty.get_or_insert(due.max(now));
    }

    /// After a trigger was disabled or enabled, or the table was rewritten, it may have what nobody has told of. Returns
    /// whether all users are to be compared. To be called with the state read in a transaction.
    pub fn follow(&mut self, tenant: Tenant, capture_version: i64) -> bool {
        let known = self.capture_version.replace(capture_version);
        let has_changed = known.is_some_and(|known| known != capture_version);
        if has_changed {
            tenant.set_may_have_declared();
            self.check_empty_soon();
        }
        has_changed
    }

    fn may_try(&self) -> bool {
        self.pause.is_none_or(|pause| Instant::now() >= pause.until)
    }

    fn failed(&mut self, tenant: Tenant, aborted: &Aborted) {
        trouble::report_aborted(tenant, Work::Declared, aborted);
        self.pause = match aborted {
            Aborted::Failed(_) => Some(Pause::after(self.pause, MAX_TABLE_PAUSE)),
            _ => None,
        };
    }
}

/// Returns what is shown of these users now. To be called in a transaction.
pub fn shown_of(tenant: Tenant, updates: &[UserUpdate]) -> Vec<Shown> {
    let by_sessions = updates.iter().map(|update| (update.user.user_id, update.user.status));
    if !tenant.may_have_declared() {
        return by_sessions
            .map(|(_, status)| shown(status, Default::default()))
            .collect();
    }
    let ids: Vec<_> = updates.iter().map(|update| update.user.user_id).collect();
    let mut declared = declared::of_users(&ids, tenant.synchronize_clock().wall());
    let of_user = |(id, status): (_, Status)| shown(status, declared.remove(&id).unwrap_or_default());
    by_sessions.map(of_user).collect()
}

/// Reads how the triggers stand, for [`DeclaredWatch::follow`]. To be called in a transaction.
pub fn capture_version(install: &Installed) -> i64 {
    declared::capture_state(install).0
}
