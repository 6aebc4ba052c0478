//! Changes of status: from the roster's queue to the tables.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use uuid::Uuid;

use super::transaction::{Aborted, Durability, RETRY_AFTER, run_transaction};
use crate::{
    pg::{compat, fault_point},
    roster::Tenant,
    rules::{payload::Change, status::Reason},
    settings,
    store::{
        feed::{self, UserUpdate, Written},
        feed_state::{self, FeedState},
        load,
    },
};

/// Users per batch.
const BATCH: usize = 5000;

/// The outcome of a batch.
pub enum Batch {
    /// There was no user to compare.
    Empty,
    /// These changes are committed.
    Written(Vec<Change>),
    /// `_feed_state` is not what the worker expects; it has to be reconciled.
    StateChanged,
    /// A lock conflict; these users are tried again.
    Blocked,
    /// The extension was dropped, or created again.
    Dropped,
}

/// Writes changes of status in batches, and keeps the users whose batch was not written.
#[derive(Default)]
pub struct ChangeWriter {
    /// Users to compare besides those in the roster's queue.
    deferred: HashMap<Uuid, UserUpdate>,
    /// Not before this; `None`: at once.
    retry_at: Option<Instant>,
    /// Whether the next batch leaves out locked rows, because the last one met some.
    skip_locked: bool,
}

impl ChangeWriter {
    /// Returns when to write users that are not in the roster's queue, if there are any.
    pub fn due(&self) -> Option<Instant> {
        (!self.deferred.is_empty()).then(|| self.retry_at.unwrap_or_else(Instant::now))
    }

    /// Adds users to those in the roster's queue.
    pub fn add(&mut self, updates: impl IntoIterator<Item = UserUpdate>) {
        self.deferred
            .extend(updates.into_iter().map(|update| (update.user.user_id, update)));
    }

    /// Takes a batch of users and writes those whose status has changed. Advances `state` to the last change written.
    pub fn write(&mut self, tenant: Tenant, state: &mut FeedState) -> Batch {
        let mut updates = self.next_batch(tenant);
        if updates.is_empty() {
            return Batch::Empty;
        }
        let skip_locked = self.skip_locked;
        let mut locked = Vec::new();
        let result = run_transaction(Some(tenant), Durability::Flushed, |_| {
            if !tenant.is_complete() {
                check_table(tenant, &mut updates);
            }
            if skip_locked {
                locked = feed::split_off_locked(&mut updates);
            }
            let written = feed::write(state, &updates);
            fault_point::reach("write");
            written
        });
        match result {
            Ok(Written::Changes(changes)) => {
                self.skip_locked = !locked.is_empty();
                self.defer(locked);
                if let Some(last) = changes.last() {
                    state.seq = last.seq;
                }
                tenant.worker().changes.add(changes.len() as u64);
                tenant.worker().seq.set(state.seq as u64);
                Batch::Written(changes)
            }
            Ok(Written::StateChanged) => {
                updates.extend(locked);
                self.defer(updates);
                Batch::StateChanged
            }
            Err(Aborted::LockConflict | Aborted::QueueFull) => {
                self.skip_locked = true;
                updates.extend(locked);
                self.defer(updates);
                Batch::Blocked
            }
            Err(Aborted::Dropped) => Batch::Dropped,
        }
    }

    /// Takes the next users to compare, each once, with their status now.
    fn next_batch(&mut self, tenant: Tenant) -> Vec<UserUpdate> {
        let (now, timeout) = (compat::now(), settings::active_timeout());
        let dirty = tenant.take_dirty(BATCH, timeout, now);
        let is_retry_due = self.retry_at.is_none_or(|at| Instant::now() >= at);
        if self.deferred.is_empty() {
            return dirty.into_iter().map(UserUpdate::from).collect();
        }
        let mut updates: HashMap<Uuid, UserUpdate> = HashMap::with_capacity(dirty.len());
        for user in dirty {
            // The queue's entry is newer than the deferred one.
            self.deferred.remove(&user.user_id);
            updates.insert(user.user_id, user.into());
        }
        if is_retry_due {
            self.retry_at = None;
            let room = BATCH.saturating_sub(updates.len());
            let ids: Vec<Uuid> = self.deferred.keys().copied().take(room).collect();
            for id in ids {
                if let Some(deferred) = self.deferred.remove(&id) {
                    let mut user = tenant.dirty_user(&id, deferred.user.reason, now, timeout);
                    user.last_seen = user.last_seen.max(deferred.user.last_seen);
                    user.keyed |= deferred.user.keyed;
                    updates.insert(
                        id,
                        UserUpdate {
                            user,
                            reason: deferred.reason,
                        },
                    );
                }
            }
        }
        updates.into_values().collect()
    }

    fn defer(&mut self, updates: Vec<UserUpdate>) {
        if !updates.is_empty() {
            self.retry_at = Some(Instant::now() + RETRY_AFTER);
            self.add(updates);
        }
    }
}

/// While the roster is incomplete, a user it calls inactive may still have a live session in the table: makes such
/// users active.
fn check_table(tenant: Tenant, updates: &mut [UserUpdate]) {
    let inactive: Vec<Uuid> = updates
        .iter()
        .filter(|update| !update.user.active)
        .map(|update| update.user.user_id)
        .collect();
    if inactive.is_empty() {
        return;
    }
    let live = load::users_live_only_in_table(tenant, Some(&inactive), compat::now(), settings::active_timeout());
    for update in updates {
        if live.contains(&update.user.user_id) {
            update.user.active = true;
            // The reason was one for becoming inactive.
            update.reason = None;
        }
    }
}

/// Compares all users of the tables with the roster, and returns those who differ, with `reason` as the reason if it is
/// known. To be called in a transaction.
pub fn compare_all(tenant: Tenant, reason: Option<Reason>) -> Vec<UserUpdate> {
    let (now, timeout) = (compat::now(), settings::active_timeout());
    // First what was written, then the roster: users who change in between are in the roster's queue.
    let mut written_online = load::online_users();
    let mut active = tenant.active_users(now, timeout);
    if !tenant.is_complete() {
        let known: HashSet<Uuid> = active.iter().map(|user| user.user_id).collect();
        let in_table = load::users_live_only_in_table(tenant, None, now, timeout);
        for id in in_table.into_iter().filter(|id| !known.contains(id)) {
            let mut user = tenant.dirty_user(&id, Reason::Started, now, timeout);
            user.active = true;
            active.push(user);
        }
    }
    let mut updates = Vec::new();
    for user in active {
        if !written_online.remove(&user.user_id) {
            updates.push(UserUpdate { user, reason });
        }
    }
    for id in written_online {
        let user = tenant.dirty_user(&id, Reason::Deleted, now, timeout);
        updates.push(UserUpdate { user, reason });
    }
    updates
}

/// Makes `_feed_state` one row that belongs here, in a transaction of its own, and returns its state.
pub fn reconcile_state(tenant: Tenant) -> Result<FeedState, Aborted> {
    run_transaction(Some(tenant), Durability::Flushed, |_| feed_state::reconcile())
}
