//! What is declared of users, as the worker follows it: when it expires, and whether there is any.
//!
//! Readers decide by the clock, so an expiry needs no statement of anybody. The worker only tells it.

use std::{
    cell::Cell,
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    compare::{Comparison, check_table, current},
    set_aside::{MAX_TABLE_PAUSE, Pause},
    transaction::{Aborted, Durability, RETRY_AFTER, run_transaction, write_limit},
    trouble::{self, Work},
};
use crate::{
    pg::installed::Installed,
    roster::Tenant,
    rules::{declared::shown, hiding::Visible, status::Reason, time::Micros},
    settings,
    store::{
        declared::{self as table, CaptureState, Declared, LastWritten},
        feed::{ShownUser, UserUpdate},
        visibility,
    },
};

/// The least time between two looks whether the table is empty.
const EMPTY_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The same where it took too long.
const EMPTY_CHECK_RETRY: Duration = Duration::from_secs(30);

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
    /// Whether something may be declared that was not looked at, as others had locked the table.
    is_behind: bool,
    /// When to look again whether they still have.
    catch_up_at: Option<Instant>,
    has_seen_own_hiding: bool,
    /// Set after the table could not be read.
    pause: Option<Pause>,
}

impl DeclaredWatch {
    /// Everything is to be looked at by the comparison of all users that follows a start.
    pub fn new(tenant: Tenant) -> DeclaredWatch {
        // Nobody has looked after the triggers while there was no worker.
        tenant.set_may_have_hidden();
        tenant.lose_visibility();
        DeclaredWatch {
            looked_until: tenant.now().wall(),
            next_expiry: None,
            check_empty: Some(Instant::now()),
            checked_empty: None,
            capture_version: None,
            is_behind: false,
            catch_up_at: None,
            has_seen_own_hiding: false,
            pause: None,
        }
    }

    /// Returns what is shown of these users now, and notes when that expires. To be called in a transaction.
    ///
    /// Where others have locked the table, what was last written counts as declared. Users of whom that tells too little are
    /// removed from `updates`, and left to the comparison of all users that follows: those whose declarations are why they
    /// are written, and some who neither come nor go. These are added to `left_out`.
    pub fn shown(
        &mut self,
        tenant: Tenant,
        updates: &mut Vec<UserUpdate>,
        left_out: &mut Vec<UserUpdate>,
    ) -> Vec<ShownUser> {
        let now = tenant.synchronize_clock().wall();
        let shown = if !tenant.may_have_declared() {
            shown_with(updates, HashMap::new(), &HashMap::new(), now)
        } else if table::try_lock() {
            let visible = self.visible(tenant, updates);
            shown_with(updates, table::of_users(&ids(updates), now), &visible, now)
        } else {
            self.is_behind = true;
            let may_be_hidden = tenant.may_have_hidden() && !tenant.knows_hidden();
            let mut written = table::last_written(&ids(updates), now);
            left_out.extend(updates.extract_if(.., |update| {
                let stays = |written: &LastWritten| written.is_online && update.user.status.is_online();
                let written = written.get(&update.user.user_id);
                let was_online = written.is_some_and(|it| it.is_online);
                update.reason == Some(Reason::Declared)
                    || written.is_some_and(|it| !it.is_certain && stays(it))
                    // Perhaps hidden, and nobody may know what else happens to it.
                    || may_be_hidden && !was_online
            }));
            // What a hidden user does is not to be written. Of any other who goes, the last activity was seen.
            let hidden = updates.iter().filter(|update| update.user.is_hidden).map(|update| {
                let user_id = update.user.user_id;
                (
                    user_id,
                    Visible::nothing(written.get(&user_id).and_then(|it| it.last_seen)),
                )
            });
            let visible = hidden.collect();
            let declared = written.drain().map(|(user_id, written)| (user_id, written.declared));
            shown_with(updates, declared.collect(), &visible, now)
        };
        self.expect_expiry(shown.iter().filter_map(|user| user.shown.expires_at).min());
        let is_gone = |(update, user): (&UserUpdate, &ShownUser)| {
            let has_declared = user.shown.has_details() || user.shown.expires_at.is_some();
            update.reason == Some(Reason::Declared) && !has_declared && !user.visible.is_hidden()
        };
        if updates.iter().zip(&shown).any(is_gone) {
            self.check_empty_soon();
        }
        shown
    }

    /// Returns what is visible of these users, who are hidden or were. Where only the table tells, it is read before the sessions,
    /// too: what is read of them says nothing of a moment at which the user was hidden.
    fn visible(&mut self, tenant: Tenant, updates: &mut [UserUpdate]) -> HashMap<Uuid, Visible> {
        if !tenant.may_have_hidden() {
            return HashMap::new();
        }
        let now = tenant.synchronize_clock();
        if tenant.knows_hidden() {
            let mut visible = self.visible_at(tenant, updates, now.wall());
            // Of who is online, the roster says what is visible; the row, who has hidden since, and what to show of who is not.
            for UserUpdate { user, .. } in updates.iter().filter(|update| update.user.status.is_online()) {
                if visible.get(&user.user_id).is_some_and(|visible| !visible.is_hidden()) {
                    visible.remove(&user.user_id);
                }
            }
            return visible;
        }
        let before = self.visible_at(tenant, updates, now.wall());
        for update in updates.iter_mut() {
            if before.contains_key(&update.user.user_id) {
                *update = current(tenant, *update, &now);
            }
        }
        if !tenant.is_complete() {
            check_table(tenant, updates);
        }
        visibility::throughout(before, &self.visible_at(tenant, updates, now.wall()))
    }

    fn visible_at(&mut self, tenant: Tenant, updates: &[UserUpdate], now: Micros) -> HashMap<Uuid, Visible> {
        let hidings = visibility::of_users(&ids(updates));
        self.expect_expiry(visibility::next_end(&hidings, now));
        for (user_id, hiding) in &hidings {
            match hiding.hidden_until() {
                // Nobody has noted it before it was over.
                Some(at) if at <= now => tenant.expire_hiding(user_id, at, settings::active_timeout()),
                Some(_) => self.has_seen_own_hiding |= hiding.by_user && !settings::allow_invisible(),
                None => {}
            }
        }
        let visible = hidings.into_iter().map(|(user, hiding)| (user, hiding.visible(now)));
        visible.collect()
    }

    /// Returns whether a user was met who has hidden itself and may not.
    pub fn take_own_hiding(&mut self) -> bool {
        std::mem::take(&mut self.has_seen_own_hiding)
    }

    /// Whether users are left to a comparison of all, as others have locked the table.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Returns whether all users are to be compared, as others had locked the table, and have not any more. Until then, it is
    /// behind.
    pub fn catches_up(&mut self, tenant: Tenant) -> bool {
        if !self.is_behind || self.catch_up_at.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let is_free = run_with_declared(tenant, Durability::Lazy, None, |_| ()).is_ok();
        self.catch_up_at = Some(Instant::now() + RETRY_AFTER);
        is_free
    }

    /// Notes that all users were compared.
    pub fn compared(&mut self, comparison: &Comparison) {
        self.is_behind = comparison.is_behind;
        self.expect_expiry(comparison.next_expiry);
        self.check_empty_soon();
    }

    /// Notes that something expires then.
    pub fn expect_expiry(&mut self, at: Option<Micros>) {
        if let Some(at) = at {
            // The clock may have been set back to before it.
            self.looked_until = self.looked_until.min(at - 1);
        }
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
        let found = run_with_declared(tenant, Durability::Lazy, None, |_| {
            let users = table::expired_users(after, now.wall());
            (users, table::next_expiry(now.wall()))
        });
        match found {
            Ok((users, next_expiry)) => {
                self.pause = None;
                self.looked_until = now.wall();
                self.next_expiry = next_expiry;
                self.check_empty_soon();
                let timeout = settings::active_timeout();
                let update = |(id, hidden_until): &(Uuid, Option<Micros>)| {
                    if let Some(at) = hidden_until {
                        tenant.expire_hiding(id, *at, timeout);
                    }
                    tenant.dirty_user(id, Reason::Declared, &now, timeout).into()
                };
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
        if self.check_empty.is_none_or(|at| now < at) {
            return;
        }
        self.check_empty = None;
        self.checked_empty = Some(now);
        if !tenant.may_have_declared() {
            return;
        }
        let is_worth_it = Cell::new(false);
        let result = run_with_declared(tenant, Durability::Lazy, Some(write_limit(0)), |install| {
            // Whoever has written a row holds a lock until its commit is visible, and whoever is about to write one takes
            // it first, and then says so.
            is_worth_it.set(table::is_empty() || tenant.may_have_hidden() && !visibility::exists());
            if is_worth_it.get()
                && table::try_lock_writers_out()
                && table::capture_state(&install).is_enabled
                // Until the roster knows that nobody is hidden any more, readers have to look.
                && (!tenant.is_visibility_lost() || tenant.known_users() == 0)
            {
                if !visibility::exists() {
                    tenant.set_nothing_hidden();
                }
                if table::is_empty() {
                    tenant.set_nothing_declared();
                }
                is_worth_it.set(false);
            }
        });
        match result {
            Ok(()) => {
                // Rows are gone, and somebody is writing others.
                if is_worth_it.get() {
                    self.check_empty = Some(now + EMPTY_CHECK_INTERVAL);
                }
            }
            Err(aborted) => {
                let wait = match &aborted {
                    // It takes long where many rows have gone that an old snapshot keeps.
                    Aborted::Failed(failure) if failure.is_timeout() => EMPTY_CHECK_RETRY,
                    _ => EMPTY_CHECK_INTERVAL,
                };
                if wait == EMPTY_CHECK_INTERVAL {
                    trouble::report_aborted(tenant, Work::Declared, &aborted);
                }
                self.check_empty = Some(now + wait);
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
    pub fn follow(&mut self, tenant: Tenant, capture: CaptureState) -> bool {
        let known = self.capture_version.replace(capture.version);
        let has_changed = known.is_some_and(|known| known != capture.version);
        if has_changed || !capture.is_enabled {
            tenant.set_may_have_hidden();
            tenant.lose_visibility();
        }
        if has_changed {
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

/// Runs `f` as [`run_transaction`] does, with `declared_statuses` locked for reading as well.
pub fn run_with_declared<R>(
    tenant: Tenant,
    durability: Durability,
    limit: Option<Duration>,
    f: impl FnOnce(Installed) -> R,
) -> Result<R, Aborted> {
    let result = run_transaction(Some(tenant), durability, limit, |install| {
        table::try_lock().then(|| f(install))
    });
    result?.ok_or(Aborted::LockConflict)
}

/// Executes the statement that [`DeclaredWatch::shown`] reads the table with, for nobody. To be called in a transaction.
pub fn try_to_read(tenant: Tenant) {
    if tenant.may_have_declared() && table::try_lock() {
        table::of_users(&[], tenant.now().wall());
    }
}

fn ids(updates: &[UserUpdate]) -> Vec<Uuid> {
    updates.iter().map(|update| update.user.user_id).collect()
}

/// Returns what is shown of these users with what is declared.
fn shown_with(
    updates: &[UserUpdate],
    mut declared: HashMap<Uuid, Declared>,
    visible: &HashMap<Uuid, Visible>,
    now: Micros,
) -> Vec<ShownUser> {
    let idle_timeout = settings::idle_timeout();
    let of_user = |UserUpdate { user, .. }: &UserUpdate| {
        let visible = visible.get(&user.user_id).copied().unwrap_or(Visible::ALL);
        let by_sessions = visible.status(user.status, user.idle_since, now, idle_timeout);
        ShownUser {
            shown: shown(by_sessions, declared.remove(&user.user_id).unwrap_or_default()),
            idle_since: user.idle_since.and_then(|at| visible.idle_since(at, now, idle_timeout)),
            visible,
        }
    };
    updates.iter().map(of_user).collect()
}
