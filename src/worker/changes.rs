//! Changes of status: from the roster's queue to the tables.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::transaction::{Aborted, Durability, run_transaction};
use crate::{
    pg::{compat, fault_point},
    roster::Tenant,
    rules::{payload::Change, status::Reason},
    settings,
    store::{
        feed::{self, Candidate, Written},
        feed_state::{self, FeedState},
        load,
    },
};

/// Users in one batch.
const BATCH: usize = 5000;
/// How long users wait whose batch found somebody in its way.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What came of a batch.
pub enum Batch {
    /// There was no user to compare.
    Empty,
    /// These users have changed, and that is written.
    Written(Vec<Change>),
    /// `_feed_state` was changed by somebody else; it has to be reconciled.
    StateChanged,
    /// Somebody holds a lock; these users are tried again.
    Blocked,
    /// The extension was dropped, or it is another one.
    Dropped,
}

/// Users whose change could not be written yet, and how the next batch has to be written.
#[derive(Default)]
pub struct Changes {
    held: HashMap<Uuid, Candidate>,
    held_until: Option<Instant>,
    /// The last batch met a locked row: candidate for locked rows before the next one.
    skip_locked: bool,
}

impl Changes {
    /// When users are to be looked at that are not in the roster's queue.
    pub fn due(&self) -> Option<Instant> {
        (!self.held.is_empty()).then(|| self.held_until.unwrap_or_else(Instant::now))
    }

    /// Looks at users besides those in the roster's queue.
    pub fn also(&mut self, candidates: impl IntoIterator<Item = Candidate>) {
        self.held.extend(
            candidates
                .into_iter()
                .map(|candidate| (candidate.user.user_id, candidate)),
        );
    }

    /// Takes a batch of users and writes those whose status has changed. `state` moves on with what was written.
    pub fn write(&mut self, tenant: Tenant, state: &mut FeedState) -> Batch {
        let mut candidates = self.take(tenant);
        if candidates.is_empty() {
            return Batch::Empty;
        }
        let skip_locked = self.skip_locked;
        let mut aside = Vec::new();
        let result = run_transaction(Some(tenant), Durability::Flushed, |_| {
            if !tenant.is_complete() {
                check_table(tenant, &mut candidates);
            }
            if skip_locked {
                aside = feed::set_aside_locked(&mut candidates);
            }
            let written = feed::write(state, &candidates);
            fault_point::reach("write");
            written
        });
        match result {
            Ok(Written::Changes(changes)) => {
                self.skip_locked = !aside.is_empty();
                self.hold(aside);
                if let Some(last) = changes.last() {
                    state.seq = last.seq;
                }
                tenant.worker().changes.add(changes.len() as u64);
                tenant.worker().seq.set(state.seq as u64);
                Batch::Written(changes)
            }
            Ok(Written::StateChanged) => {
                candidates.extend(aside);
                self.hold(candidates);
                Batch::StateChanged
            }
            Err(Aborted::LockConflict | Aborted::QueueFull) => {
                self.skip_locked = true;
                candidates.extend(aside);
                self.hold(candidates);
                Batch::Blocked
            }
            Err(Aborted::Dropped) => Batch::Dropped,
        }
    }

    /// The next users to candidate at, each once, with their status as it is now.
    fn take(&mut self, tenant: Tenant) -> Vec<Candidate> {
        let (now, timeout) = (compat::now(), settings::active_timeout());
        let dirty = tenant.take_dirty(BATCH, timeout, now);
        let held_due = self.held_until.is_none_or(|until| Instant::now() >= until);
        if self.held.is_empty() {
            return dirty.into_iter().map(Candidate::from).collect();
        }
        // A user from the queue is newer than the same user held.
        let mut candidates: HashMap<Uuid, Candidate> = HashMap::with_capacity(dirty.len());
        for user in dirty {
            self.held.remove(&user.user_id);
            candidates.insert(user.user_id, user.into());
        }
        if held_due {
            self.held_until = None;
            let room = BATCH.saturating_sub(candidates.len());
            let ids: Vec<Uuid> = self.held.keys().copied().take(room).collect();
            for id in ids {
                if let Some(held) = self.held.remove(&id) {
                    let mut user = tenant.dirty_user(&id, held.user.reason, now, timeout);
                    user.last_seen = user.last_seen.max(held.user.last_seen);
                    user.keyed |= held.user.keyed;
                    candidates.insert(
                        id,
                        Candidate {
                            user,
                            reason: held.reason,
                        },
                    );
                }
            }
        }
        candidates.into_values().collect()
    }

    fn hold(&mut self, candidates: Vec<Candidate>) {
        if !candidates.is_empty() {
            self.held_until = Some(Instant::now() + RETRY_AFTER);
            self.also(candidates);
        }
    }
}

/// Where the roster does not know every session: who is inactive by the roster may have a live session in the table.
fn check_table(tenant: Tenant, candidates: &mut [Candidate]) {
    let inactive: Vec<Uuid> = candidates
        .iter()
        .filter(|candidate| !candidate.user.active)
        .map(|candidate| candidate.user.user_id)
        .collect();
    if inactive.is_empty() {
        return;
    }
    let live = load::users_live_in_table(tenant, Some(&inactive), compat::now(), settings::active_timeout());
    for candidate in candidates {
        if live.contains(&candidate.user.user_id) {
            candidate.user.active = true;
            // The reason was one for becoming inactive.
            candidate.reason = None;
        }
    }
}

/// Compares all users of the tables with the roster, and gives those who differ. `reason`: why they do, if it is known.
/// To be called in a transaction.
pub fn compare(tenant: Tenant, reason: Option<Reason>) -> Vec<Candidate> {
    let (now, timeout) = (compat::now(), settings::active_timeout());
    // First what was written, then what is: whoever changes in between is in the roster's queue.
    let mut written_online = load::online_users();
    let mut active = tenant.active_users(now, timeout);
    if !tenant.is_complete() {
        let known: std::collections::HashSet<Uuid> = active.iter().map(|user| user.user_id).collect();
        let in_table = load::users_live_in_table(tenant, None, now, timeout);
        for id in in_table.into_iter().filter(|id| !known.contains(id)) {
            let mut user = tenant.dirty_user(&id, Reason::Started, now, timeout);
            user.active = true;
            active.push(user);
        }
    }
    let mut candidates = Vec::new();
    for user in active {
        if !written_online.remove(&user.user_id) {
            candidates.push(Candidate { user, reason });
        }
    }
    for id in written_online {
        let user = tenant.dirty_user(&id, Reason::Deleted, now, timeout);
        candidates.push(Candidate { user, reason });
    }
    candidates
}

/// Makes sure that `_feed_state` is one row that belongs here.
pub fn reconcile(tenant: Tenant) -> Result<FeedState, Aborted> {
    run_transaction(Some(tenant), Durability::Flushed, |_| feed_state::reconcile())
}
