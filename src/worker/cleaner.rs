//! Cleanup in steps: old sessions, old changes, old users, and what was declared and has expired long ago.

use std::time::{Duration, Instant};

use super::{
    declared::run_with_declared,
    set_aside::{Pause, SetAside},
    transaction::{Aborted, Durability, Failure, run_transaction, write_limit},
    trouble::{self, Work},
};
use crate::{
    pg::{compat, fault_point, installed::Installed},
    roster::Tenant,
    rules::{intervals, time::Micros},
    settings,
    store::{
        cleanup::{self, Cleaned, Cleaning, PAGES_PER_STEP},
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
/// The longest pause after an error.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How long one step writes parts of a batch that has failed.
const SUSPECTS_LIMIT: Duration = Duration::from_millis(50);
/// Rows in a row that could not be written alone before the rest of their batches is left for the next pass.
const MAX_SINGLE_FAILURES: u32 = 16;
/// Retry delay after a lock conflict.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A pass over all pages of a table, in steps.
struct TablePass {
    /// The first page of the next step; `None` between two passes.
    next_page: Option<i64>,
    started_at: Instant,
    due: Instant,
    /// Set where no row at all could be written.
    pause: Option<Pause>,
}

impl TablePass {
    fn new(now: Instant, delay: Duration) -> TablePass {
        TablePass {
            next_page: None,
            started_at: now,
            due: now + delay,
            pause: None,
        }
    }

    /// Returns the first page of this step. Starts a pass if none is in progress.
    fn page(&mut self, now: Instant) -> i64 {
        *self.next_page.get_or_insert_with(|| {
            self.started_at = now;
            0
        })
    }

    /// Tries the same step again after an error or a lock conflict.
    fn retry(&mut self, tenant: Tenant, work: Work, aborted: &Aborted) {
        trouble::report_aborted(tenant, work, aborted);
        self.pause = match aborted {
            Aborted::Failed(_) => Some(Pause::after(self.pause, MAX_PAUSE)),
            _ => None,
        };
        self.due = self
            .pause
            .map_or_else(|| Instant::now() + RETRY_AFTER, |pause| pause.until);
    }

    /// Schedules the next step at once, or else the next pass an interval after the start of this one.
    fn schedule(&mut self, now: Instant, next_page: Option<i64>, interval: Duration) {
        self.next_page = next_page;
        self.pause = None;
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
    prune_pause: Option<Pause>,
    declared: TablePass,
    /// Whether a pass over `declared_statuses` has ended.
    has_cleaned_declared: bool,
    /// Parts of batches that have failed, to be written one by one.
    suspects: Vec<Vec<Cleaning>>,
    /// In the past: they are due as long as there are any.
    suspects_due: Instant,
    /// Sessions, users, and users of whom something was declared, that cannot be written.
    set_aside: [SetAside; 3],
    single_failures: u32,
}

/// Which of the sets a row belongs to.
fn set_of(cleaning: &Cleaning) -> usize {
    match cleaning {
        Cleaning::Update { .. } | Cleaning::DeleteSession(_) => 0,
        Cleaning::DeleteUser(_) => 1,
        Cleaning::DeleteDeclared(_) => 2,
    }
}

fn work_of(cleaning: &Cleaning) -> Work {
    [Work::CleanSessions, Work::CleanUsers, Work::CleanDeclared][set_of(cleaning)]
}

impl Cleaner {
    pub fn new() -> Cleaner {
        let now = Instant::now();
        let delay = session_interval().min(MAX_FIRST_DELAY);
        Cleaner {
            sessions: TablePass::new(now, delay),
            users: TablePass::new(now, delay),
            prune_due: now,
            prune_pause: None,
            declared: TablePass::new(now, delay),
            has_cleaned_declared: false,
            suspects: Vec::new(),
            suspects_due: now,
            set_aside: Default::default(),
            single_failures: 0,
        }
    }

    /// Returns how many rows wait because they could not be written.
    pub fn waiting(&self) -> usize {
        let suspects: usize = self.suspects.iter().map(Vec::len).sum();
        let stopped = [
            self.sessions.pause,
            self.users.pause,
            self.prune_pause,
            self.declared.pause,
        ];
        let rows: usize = self.set_aside.iter().map(SetAside::len).sum();
        rows + suspects + stopped.iter().flatten().count()
    }

    /// Returns when the next step is due.
    pub fn due(&self) -> Instant {
        let due = self.sessions.due.min(self.prune_due).min(self.users.due);
        let due = due.min(self.declared.due);
        match self.suspects.is_empty() {
            true => due,
            false => due.min(self.suspects_due),
        }
    }

    /// Reschedules after a reload of the settings, as intervals may be shorter now.
    pub fn reschedule(&mut self) {
        let now = Instant::now();
        for pass in [&mut self.sessions, &mut self.users, &mut self.declared] {
            if pass.next_page.is_none() {
                pass.due = pass.due.min((pass.started_at + session_interval()).max(now));
            }
        }
        self.prune_due = self.prune_due.min(now + prune_interval());
    }

    /// Cleans up sessions now, after the clock was set.
    pub fn clean_sessions_now(&mut self) {
        self.sessions.due = self.sessions.due.min(Instant::now());
    }

    /// Takes one step of what is due.
    pub fn step(&mut self, tenant: Tenant, state: &mut FeedState) {
        let now = Instant::now();
        if !self.suspects.is_empty() {
            self.write_suspects(tenant);
        } else if now >= self.prune_due {
            self.prune(tenant, state, now);
        } else if now >= self.sessions.due {
            self.step_sessions(tenant, now);
        } else if now >= self.users.due {
            self.step_users(tenant, now);
        } else if now >= self.declared.due {
            self.step_declared(tenant, now);
        }
    }

    /// Returns whether a pass over `declared_statuses` has ended since this was called last.
    pub fn take_cleaned_declared(&mut self) -> bool {
        std::mem::take(&mut self.has_cleaned_declared)
    }

    fn step_sessions(&mut self, tenant: Tenant, now: Instant) {
        let from = self.sessions.page(now);
        let set_aside = &mut self.set_aside[0];
        let found = run_transaction(Some(tenant), Durability::Lazy, None, |install| {
            let found = cleanup::find_sessions(tenant, from, from + PAGES_PER_STEP);
            (without(found, set_aside), cleanup::page_count(install.sessions))
        });
        let result = found.and_then(|(found, page_count)| {
            self.write(tenant, Work::CleanSessions, found)?;
            Ok(page_count)
        });
        let worker = tenant.worker();
        match result {
            Ok(page_count) => {
                worker.cleanup_us.set(now.elapsed().as_micros() as u64);
                let next = Some(from + PAGES_PER_STEP).filter(|&next| next < page_count);
                if next.is_none() {
                    worker.last_cleanup.set(compat::now());
                    self.set_aside[0].forget_unseen(self.sessions.started_at);
                }
                self.sessions.schedule(Instant::now(), next, session_interval());
            }
            Err(aborted) => self.sessions.retry(tenant, Work::CleanSessions, &aborted),
        }
    }

    fn step_users(&mut self, tenant: Tenant, now: Instant) {
        let Some(retention) = settings::user_retention() else {
            self.users.started_at = now;
            self.users.schedule(now, None, session_interval());
            self.set_aside[1] = SetAside::default();
            return;
        };
        let from = self.users.page(now);
        let set_aside = &mut self.set_aside[1];
        let hidden = tenant.may_have_hidden();
        let find = |install: Installed| {
            let found = cleanup::find_users(from, from + PAGES_PER_STEP, retention, hidden);
            (without(found, set_aside), cleanup::page_count(install.presence))
        };
        let found = match hidden {
            true => run_with_declared(tenant, Durability::Lazy, None, find),
            false => run_transaction(Some(tenant), Durability::Lazy, None, find),
        };
        let result = found.and_then(|(found, page_count)| {
            self.write(tenant, Work::CleanUsers, found)?;
            Ok(page_count)
        });
        match result {
            Ok(page_count) => {
                let next = Some(from + PAGES_PER_STEP).filter(|&next| next < page_count);
                if next.is_none() {
                    self.set_aside[1].forget_unseen(self.users.started_at);
                }
                self.users.schedule(Instant::now(), next, user_interval(retention));
            }
            Err(aborted) => self.users.retry(tenant, Work::CleanUsers, &aborted),
        }
    }

    fn step_declared(&mut self, tenant: Tenant, now: Instant) {
        if !tenant.may_have_declared() {
            self.declared.started_at = now;
            self.declared.schedule(now, None, session_interval());
            self.set_aside[2] = SetAside::default();
            return;
        }
        let from = self.declared.page(now);
        let set_aside = &mut self.set_aside[2];
        let found = run_with_declared(tenant, Durability::Lazy, None, |install| {
            let found = cleanup::find_declared(from, from + PAGES_PER_STEP);
            (without(found, set_aside), cleanup::page_count(install.declared))
        });
        let result = found.and_then(|(found, page_count)| {
            self.write(tenant, Work::CleanDeclared, found)?;
            Ok(page_count)
        });
        match result {
            Ok(page_count) => {
                let next = Some(from + PAGES_PER_STEP).filter(|&next| next < page_count);
                if next.is_none() {
                    self.has_cleaned_declared = true;
                    self.set_aside[2].forget_unseen(self.declared.started_at);
                }
                self.declared.schedule(Instant::now(), next, session_interval());
            }
            Err(aborted) => self.declared.retry(tenant, Work::CleanDeclared, &aborted),
        }
    }

    /// Cleans up what was found. An error that concerns a part of it makes the parts suspects; one that concerns the
    /// whole table is returned.
    fn write(&mut self, tenant: Tenant, work: Work, found: Vec<Cleaning>) -> Result<(), Aborted> {
        if found.is_empty() {
            return Ok(());
        }
        match clean(tenant, work, &found) {
            Err(Aborted::Failed(failure)) => {
                if let Err(aborted @ Aborted::Failed(_)) = clean(tenant, work, &[]) {
                    return Err(aborted);
                }
                self.single_failures = 0;
                self.suspect(tenant, work, found, &failure);
                Ok(())
            }
            result => result,
        }
    }

    /// Halves rows that could not be written together, or sets a single one aside.
    fn suspect(&mut self, tenant: Tenant, work: Work, mut rows: Vec<Cleaning>, failure: &Failure) {
        trouble::report_part(tenant, work, failure, rows.len());
        if let [row] = &rows[..] {
            self.set_aside[set_of(row)].add(row.id(), failure);
            self.single_failures += 1;
            if self.single_failures >= MAX_SINGLE_FAILURES {
                // The next pass finds them again.
                self.suspects.clear();
                self.single_failures = 0;
            }
        } else {
            let second = rows.split_off(rows.len() / 2);
            self.suspects.extend([second, rows]);
        }
    }

    fn write_suspects(&mut self, tenant: Tenant) {
        let start = Instant::now();
        while start.elapsed() < SUSPECTS_LIMIT
            && let Some(rows) = self.suspects.pop()
        {
            let work = work_of(&rows[0]);
            match clean(tenant, work, &rows) {
                Ok(()) => {
                    self.single_failures = 0;
                    for row in &rows {
                        let set_aside = &mut self.set_aside[set_of(row)];
                        if set_aside.remove(&row.id()) {
                            set_aside.retry_all();
                        }
                    }
                }
                Err(Aborted::Failed(failure)) => self.suspect(tenant, work, rows, &failure),
                // The next pass finds them again.
                Err(_) => return,
            }
        }
    }

    /// Prunes the feed by one step.
    fn prune(&mut self, tenant: Tenant, state: &mut FeedState, now: Instant) {
        // Nothing to prune: no transaction.
        if state.oldest_seq > state.seq {
            self.prune_due = now + prune_interval();
            self.prune_pause = None;
            return;
        }
        let cutoff = compat::now().saturating_sub(settings::feed_retention());
        let limit = Some(write_limit(CHANGES_PER_STEP as usize));
        let result = run_transaction(Some(tenant), Durability::Lazy, limit, |_| {
            feed::prune(state.oldest_seq, cutoff, CHANGES_PER_STEP)
        });
        if let Err(aborted) = &result {
            trouble::report_aborted(tenant, Work::Prune, aborted);
        }
        self.prune_pause = match result {
            Err(Aborted::Failed(_)) => Some(Pause::after(self.prune_pause, MAX_PAUSE)),
            _ => None,
        };
        self.prune_due = match result {
            Ok((oldest_seq, deleted)) => {
                state.oldest_seq = oldest_seq;
                match deleted == CHANGES_PER_STEP {
                    true => now,
                    false => now + prune_interval(),
                }
            }
            Err(_) => self.prune_pause.map_or(now + RETRY_AFTER, |pause| pause.until),
        };
    }
}

/// Leaves out the rows that wait for their next attempt.
fn without(mut found: Vec<Cleaning>, set_aside: &mut SetAside) -> Vec<Cleaning> {
    found.retain(|cleaning| !set_aside.must_wait(&cleaning.id()));
    found
}

/// Cleans up rows of one table in a transaction of its own.
fn clean(tenant: Tenant, work: Work, rows: &[Cleaning]) -> Result<(), Aborted> {
    let limit = Some(write_limit(rows.len()));
    if matches!(work, Work::CleanDeclared) {
        return run_with_declared(tenant, Durability::Lazy, limit, |_| cleanup::clean_declared(rows));
    }
    let hidden = matches!(work, Work::CleanUsers) && tenant.may_have_hidden();
    let clean = |_| {
        let cleaned = cleanup::clean(rows, hidden);
        fault_point::reach("cleanup");
        cleaned
    };
    let Cleaned { deactivated, deleted } = match hidden {
        true => run_with_declared(tenant, Durability::Lazy, limit, clean),
        false => run_transaction(Some(tenant), Durability::Lazy, limit, clean),
    }?;
    tenant.worker().deactivated_rows.add(deactivated as u64);
    tenant.worker().deleted_rows.add(deleted as u64);
    Ok(())
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
