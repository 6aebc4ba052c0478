//! Who is hidden, as the worker follows it: where the roster does not know, and where users may hide themselves.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    declared::{DeclaredWatch, run_with_declared},
    set_aside::{MAX_TABLE_PAUSE, Pause},
    transaction::{Aborted, Durability, RETRY_AFTER, write_limit},
    trouble::{self, Work},
};
use crate::{
    pg::fault_point,
    roster::Tenant,
    rules::hiding::Hiding,
    settings,
    store::{declared as table, visibility},
};

/// More users than these are compared with what was written, rather than queued.
const MAX_QUEUED: usize = 5000;
/// How much longer than a read of who is hidden the worker does something else.
const PACE: u32 = 4;
/// How long after the setting has changed every process has heard of it, and how often is looked whether disabled triggers
/// are enabled again.
const SETTING_INTERVAL: Duration = Duration::from_secs(10);

/// What the worker has to do about users who are hidden.
pub struct HiddenWatch {
    /// When to read again who is hidden; `None`: once the roster does not know.
    read_at: Option<Instant>,
    /// When to look whether users may hide themselves; `None`: that has not changed.
    follow_at: Option<Instant>,
    /// Whether it has been followed, and is to be once more.
    has_followed: bool,
    /// The pauses after failures of the one and the other.
    read_pause: Option<Pause>,
    follow_pause: Option<Pause>,
}

impl HiddenWatch {
    pub fn new() -> HiddenWatch {
        HiddenWatch {
            read_at: None,
            follow_at: Some(Instant::now()),
            has_followed: false,
            read_pause: None,
            follow_pause: None,
        }
    }

    /// Reads who is hidden, where the roster does not know.
    pub fn read(&mut self, tenant: Tenant, declared: &mut DeclaredWatch) {
        let start = Instant::now();
        if !tenant.is_visibility_lost() || self.read_at.is_some_and(|at| start < at) {
            return;
        }
        let (lost, now) = (tenant.visibility_lost(), tenant.synchronize_clock().wall());
        let result = run_with_declared(tenant, Durability::Lazy, None, |install| {
            let read = || match tenant.may_have_hidden() {
                true => visibility::all(),
                false => HashMap::new(),
            };
            let hides = |(user, hiding): (Uuid, Hiding)| hiding.hides(now).then_some(user);
            let mut users: HashSet<Uuid> = read().into_iter().filter_map(hides).collect();
            users.extend(tenant.left_out_users());
            // So many would fill the queue before all who have changed.
            let quietly = !tenant.is_complete() || users.len() > MAX_QUEUED;
            tenant.unresolve_users(users.iter(), quietly);
            fault_point::pause("unresolved");
            let hidings = read();
            let rows = users.iter().map(|user| (user, hidings.get(user)));
            let all = tenant.resolve_users(rows, quietly, settings::active_timeout());
            if quietly {
                tenant.request_compare();
            }
            (
                visibility::next_end(&hidings, now),
                all,
                table::capture_state(&install).is_enabled,
            )
        });
        // Whoever hides and shows users all the time does not keep it from anything else.
        self.read_at = Some(Instant::now() + RETRY_AFTER.max(start.elapsed() * PACE));
        match result {
            Ok((next_end, all, is_capturing)) => {
                self.read_pause = None;
                if all && is_capturing {
                    tenant.set_visibility_known(lost);
                } else if !is_capturing {
                    self.read_at = Some(Instant::now() + SETTING_INTERVAL);
                }
                declared.expect_expiry(next_end);
                declared.check_empty_soon();
            }
            Err(aborted) => self.read_at = retry_at(tenant, Work::Declared, &aborted, &mut self.read_pause),
        }
    }

    /// Has it read at once, as all that has been loaded waits for that.
    pub fn read_soon(&mut self) {
        self.read_at = None;
    }

    /// Notes that users who have hidden themselves are hidden though they may not be.
    pub fn own_hiding_seen(&mut self) {
        self.follow_at.get_or_insert_with(Instant::now);
    }

    /// Notes that the setting may have changed by which users may hide themselves.
    pub fn setting_changed(&mut self) {
        self.follow_at = Some(Instant::now());
        self.has_followed = false;
    }

    /// Shows the users who have hidden themselves where they may not any more, and hides them again where they may.
    pub fn follow_setting(&mut self, tenant: Tenant) {
        let start = Instant::now();
        if self.follow_at.is_none_or(|at| start < at) {
            return;
        }
        let has_followed = match tenant.may_have_hidden() {
            false => Ok(true),
            true => run_with_declared(
                tenant,
                Durability::Flushed,
                Some(write_limit(visibility::MAX_BY_KEY)),
                |_| visibility::follow_setting(settings::allow_invisible(), tenant.synchronize_clock().wall()),
            ),
        };
        self.follow_at = match &has_followed {
            Ok(true) if self.has_followed => None,
            // Once more, as a process may still have to hear of the setting.
            Ok(true) => {
                self.has_followed = true;
                Some(start + SETTING_INTERVAL)
            }
            Ok(false) => Some(Instant::now() + RETRY_AFTER),
            Err(aborted) => retry_at(tenant, Work::AllowInvisible, aborted, &mut self.follow_pause),
        };
        if has_followed.is_ok() {
            self.follow_pause = None;
        }
    }
}

/// Reports why a transaction was aborted, and returns when to try again: later each time, where it was an error.
fn retry_at(tenant: Tenant, work: Work, aborted: &Aborted, pause: &mut Option<Pause>) -> Option<Instant> {
    trouble::report_aborted(tenant, work, aborted);
    match aborted {
        Aborted::Failed(_) => {
            *pause = Some(Pause::after(*pause, MAX_TABLE_PAUSE));
            pause.map(|pause| pause.until)
        }
        _ => Some(Instant::now() + RETRY_AFTER),
    }
}
