//! Cleans up in steps: old sessions, old changes, old users.

use std::time::{Duration, Instant};

use super::transaction::{Aborted, Durability, run_transaction};
use crate::{
    pg::{compat, fault_point},
    roster::Tenant,
    rules::time::Micros,
    settings,
    store::{
        cleanup::{self, PAGES},
        feed,
        feed_state::FeedState,
    },
};

/// Changes forgotten in one step.
const CHANGES: i64 = 5000;
/// Old changes are looked for this often, or ten times in the time they are kept.
const CHANGES_EVERY: Duration = Duration::from_secs(60);
/// How long a step waits that found somebody in its way.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A walk over a table, step by step.
struct Walk {
    /// The next page, while a walk is under way.
    at: Option<i64>,
    began: Instant,
    due: Instant,
}

impl Walk {
    fn new(now: Instant, first: Duration) -> Walk {
        Walk {
            at: None,
            began: now,
            due: now + first,
        }
    }

    /// After a step: the next one at once, or the next walk a period after the last one began.
    fn goes_on(&mut self, now: Instant, next: Option<i64>, period: Duration) {
        self.at = next;
        self.due = if next.is_some() {
            now
        } else {
            (self.began + period).max(now)
        };
    }
}

/// Where cleaning has got to.
pub struct Cleaner {
    sessions: Walk,
    users: Walk,
    changes: Instant,
}

impl Cleaner {
    pub fn begin() -> Cleaner {
        let now = Instant::now();
        let first = period().min(Duration::from_secs(10));
        Cleaner {
            sessions: Walk::new(now, first),
            users: Walk::new(now, first),
            changes: now,
        }
    }

    /// When there is something to do.
    pub fn due(&self) -> Instant {
        self.sessions.due.min(self.changes).min(self.users.due)
    }

    /// The settings have changed: periods may be shorter now.
    pub fn reconsider(&mut self) {
        let now = Instant::now();
        for walk in [&mut self.sessions, &mut self.users] {
            if walk.at.is_none() {
                walk.due = walk.due.min((walk.began + period()).max(now));
            }
        }
        self.changes = self.changes.min(now + changes_every());
    }

    /// Does one step of what is due.
    pub fn step(&mut self, tenant: Tenant, state: &mut FeedState) {
        let now = Instant::now();
        if now >= self.changes {
            self.changes = forget_changes(tenant, state, now);
        } else if now >= self.sessions.due {
            self.step_sessions(tenant, now);
        } else if now >= self.users.due {
            self.step_users(tenant, now);
        }
    }

    fn step_sessions(&mut self, tenant: Tenant, now: Instant) {
        let from = *self.sessions.at.get_or_insert_with(|| {
            self.sessions.began = now;
            0
        });
        let result = run_transaction(Some(tenant), Durability::Lazy, |install| {
            let cleaned = cleanup::sessions(tenant, from, from + PAGES);
            fault_point::reach("cleanup");
            let last = cleanup::pages(install.sessions);
            (cleaned, last)
        });
        let worker = tenant.worker();
        match result {
            Ok((cleaned, last)) => {
                worker.deactivated_rows.add(cleaned.deactivated as u64);
                worker.deleted_rows.add(cleaned.deleted as u64);
                worker.cleanup_us.set(now.elapsed().as_micros() as u64);
                let next = Some(from + PAGES).filter(|&next| next < last);
                if next.is_none() {
                    worker.last_cleanup.set(compat::now());
                }
                self.sessions.goes_on(Instant::now(), next, period());
            }
            Err(_) => self.sessions.due = now + RETRY_AFTER,
        }
    }

    fn step_users(&mut self, tenant: Tenant, now: Instant) {
        let Some(retention) = settings::user_retention() else {
            self.users.began = now;
            self.users.goes_on(now, None, period());
            return;
        };
        let from = *self.users.at.get_or_insert_with(|| {
            self.users.began = now;
            0
        });
        let result = run_transaction(Some(tenant), Durability::Lazy, |install| {
            cleanup::users(from, from + PAGES, retention);
            cleanup::pages(install.presence)
        });
        match result {
            Ok(last) => {
                let next = Some(from + PAGES).filter(|&next| next < last);
                self.users.goes_on(Instant::now(), next, user_period(retention));
            }
            Err(_) => self.users.due = now + RETRY_AFTER,
        }
    }
}

/// Forgets old changes; gives when to come back.
fn forget_changes(tenant: Tenant, state: &mut FeedState, now: Instant) -> Instant {
    let cutoff = compat::now().saturating_sub(settings::feed_retention());
    let result = run_transaction(Some(tenant), Durability::Lazy, |_| {
        feed::prune(state.oldest, cutoff, CHANGES)
    });
    match result {
        Ok((oldest, gone)) => {
            state.oldest = oldest;
            if gone == CHANGES { now } else { now + changes_every() }
        }
        Err(Aborted::LockConflict | Aborted::QueueFull | Aborted::Dropped) => now + RETRY_AFTER,
    }
}

fn period() -> Duration {
    duration(settings::cleanup_period())
}

fn user_period(retention: Micros) -> Duration {
    duration(crate::rules::intervals::cleanup_period(retention))
}

fn changes_every() -> Duration {
    (duration(settings::feed_retention()) / 10).clamp(Duration::from_secs(1), CHANGES_EVERY)
}

fn duration(time: Micros) -> Duration {
    Duration::from_micros(time.max(0) as u64)
}
