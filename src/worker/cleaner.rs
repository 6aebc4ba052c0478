//! Cleanup in steps: old sessions, old changes, old users.

use std::time::{Duration, Instant};

use super::transaction::{Aborted, Durability, run_transaction};
use crate::{
    pg::{compat, fault_point},
    roster::Tenant,
    rules::{intervals, time::Micros},
    settings,
    store::{
        cleanup::{self, PAGES_PER_STEP},
        feed,
        feed_state::FeedState,
    },
};

/// Changes deleted in one step.
const CHANGES_PER_STEP: i64 = 5000;
/// The longest time between two prunings of the feed; a tenth of its retention is the other limit.
const MAX_PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// The longest time from the worker's start to the first pass.
const MAX_FIRST_DELAY: Duration = Duration::from_secs(10);
/// Retry delay after a lock conflict.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A pass over all pages of a table, in steps.
struct TablePass {
    /// The first page of the next step; `None` between two passes.
    next_page: Option<i64>,
    started_at: Instant,
    due: Instant,
}

impl TablePass {
    fn new(now: Instant, delay: Duration) -> TablePass {
        TablePass {
            next_page: None,
            started_at: now,
            due: now + delay,
        }
    }

    /// Returns the first page of this step. Starts a pass if none is in progress.
    fn page(&mut self, now: Instant) -> i64 {
        *self.next_page.get_or_insert_with(|| {
            self.started_at = now;
            0
        })
    }

    /// Schedules the next step at once, or else the next pass an interval after the start of this one.
    fn schedule(&mut self, now: Instant, next_page: Option<i64>, interval: Duration) {
        self.next_page = next_page;
        self.due = if next_page.is_some() {
            now
        } else {
            (self.started_at + interval).max(now)
        };
    }
}

/// The progress of cleanup.
pub struct Cleaner {
    sessions: TablePass,
    users: TablePass,
    prune_due: Instant,
}

impl Cleaner {
    pub fn new() -> Cleaner {
        let now = Instant::now();
        let delay = session_interval().min(MAX_FIRST_DELAY);
        Cleaner {
            sessions: TablePass::new(now, delay),
            users: TablePass::new(now, delay),
            prune_due: now,
        }
    }

    /// Returns when the next step is due.
    pub fn due(&self) -> Instant {
        self.sessions.due.min(self.prune_due).min(self.users.due)
    }

    /// Reschedules after a reload of the settings, as intervals may be shorter now.
    pub fn reschedule(&mut self) {
        let now = Instant::now();
        for pass in [&mut self.sessions, &mut self.users] {
            if pass.next_page.is_none() {
                pass.due = pass.due.min((pass.started_at + session_interval()).max(now));
            }
        }
        self.prune_due = self.prune_due.min(now + prune_interval());
    }

    /// Takes one step of what is due.
    pub fn step(&mut self, tenant: Tenant, state: &mut FeedState) {
        let now = Instant::now();
        if now >= self.prune_due {
            self.prune_due = prune_changes(tenant, state, now);
        } else if now >= self.sessions.due {
            self.step_sessions(tenant, now);
        } else if now >= self.users.due {
            self.step_users(tenant, now);
        }
    }

    fn step_sessions(&mut self, tenant: Tenant, now: Instant) {
        let from = self.sessions.page(now);
        let result = run_transaction(Some(tenant), Durability::Lazy, |install| {
            let cleaned = cleanup::clean_sessions(tenant, from, from + PAGES_PER_STEP);
            fault_point::reach("cleanup");
            let page_count = cleanup::page_count(install.sessions);
            (cleaned, page_count)
        });
        let worker = tenant.worker();
        match result {
            Ok((cleaned, page_count)) => {
                worker.deactivated_rows.add(cleaned.deactivated as u64);
                worker.deleted_rows.add(cleaned.deleted as u64);
                worker.cleanup_us.set(now.elapsed().as_micros() as u64);
                let next = Some(from + PAGES_PER_STEP).filter(|&next| next < page_count);
                if next.is_none() {
                    worker.last_cleanup.set(compat::now());
                }
                self.sessions.schedule(Instant::now(), next, session_interval());
            }
            Err(_) => self.sessions.due = now + RETRY_AFTER,
        }
    }

    fn step_users(&mut self, tenant: Tenant, now: Instant) {
        let Some(retention) = settings::user_retention() else {
            self.users.started_at = now;
            self.users.schedule(now, None, session_interval());
            return;
        };
        let from = self.users.page(now);
        let result = run_transaction(Some(tenant), Durability::Lazy, |install| {
            cleanup::delete_users(from, from + PAGES_PER_STEP, retention);
            cleanup::page_count(install.presence)
        });
        match result {
            Ok(page_count) => {
                let next = Some(from + PAGES_PER_STEP).filter(|&next| next < page_count);
                self.users.schedule(Instant::now(), next, user_interval(retention));
            }
            Err(_) => self.users.due = now + RETRY_AFTER,
        }
    }
}

/// Prunes the feed by one step. Returns when the next one is due.
fn prune_changes(tenant: Tenant, state: &mut FeedState, now: Instant) -> Instant {
    let cutoff = compat::now().saturating_sub(settings::feed_retention());
    let result = run_transaction(Some(tenant), Durability::Lazy, |_| {
        feed::prune(state.oldest_seq, cutoff, CHANGES_PER_STEP)
    });
    match result {
        Ok((oldest_seq, deleted)) => {
            state.oldest_seq = oldest_seq;
            match deleted == CHANGES_PER_STEP {
                true => now,
                false => now + prune_interval(),
            }
        }
        Err(Aborted::LockConflict | Aborted::QueueFull | Aborted::Dropped) => now + RETRY_AFTER,
    }
}

fn session_interval() -> Duration {
    duration(settings::cleanup_period())
}

fn user_interval(retention: Micros) -> Duration {
    duration(intervals::cleanup_period(retention))
}

fn prune_interval() -> Duration {
    (duration(settings::feed_retention()) / 10).clamp(Duration::from_secs(1), MAX_PRUNE_INTERVAL)
}

fn duration(time: Micros) -> Duration {
    Duration::from_micros(time.max(0) as u64)
}
