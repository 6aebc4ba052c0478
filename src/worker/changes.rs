//! Changes of what is shown: from the roster's queue to the tables.

use std::{collections::HashMap, time::Instant};

use uuid::Uuid;

use super::{
    compare::{check_table, current, split_off_unapplied},
    declared::{self, DeclaredWatch},
    set_aside::{MAX_TABLE_PAUSE, Pause, SetAside},
    transaction::{Aborted, Durability, Failure, RETRY_AFTER, run_transaction, write_limit},
    trouble::{self, Work},
};
use crate::{
    pg::{clock, fault_point},
    roster::{DirtyUser, Now, Tenant},
    rules::payload::Change,
    settings,
    store::{
        feed::{self, UserUpdate, Written},
        feed_state::{self, FeedState},
    },
};

/// Users per batch.
const BATCH: usize = 5000;
/// Users in a row that could not be written alone before the others of their batches are postponed.
const MAX_SINGLE_FAILURES: u32 = 16;
/// How often a batch is tried again at once after a serialization failure.
const MAX_RETRIES: usize = 3;
/// Attempts to write users that are set aside take at most 1 / `SET_ASIDE_SHARE` of the time.
const SET_ASIDE_SHARE: u32 = 10;

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
    /// An error; what it concerns is being found out, or waits.
    Failed,
    /// The extension was dropped, or created again.
    Dropped,
}

/// Writes changes of status in batches, and keeps the users whose batch was not written.
///
/// A batch that fails is halved until the user whose row cannot be written is alone. That one is set aside, and tried
/// again after a pause. Where even no users at all cannot be written, as after a change to a table, nothing is halved,
/// and everybody waits for the next attempt.
pub struct ChangeWriter {
    /// Users to compare besides those in the roster's queue.
    deferred: HashMap<Uuid, UserUpdate>,
    /// Not before this; `None`: at once.
    retry_at: Option<Instant>,
    /// Whether the next batch leaves out locked rows, because the last one met some.
    skip_locked: bool,
    /// Parts of batches that have failed, to be written one by one.
    suspects: Vec<Vec<UserUpdate>>,
    /// Users who cannot be written.
    set_aside: SetAside,
    /// What to write of them.
    set_aside_updates: HashMap<Uuid, UserUpdate>,
    /// Those who are set aside are not tried before this.
    set_aside_at: Option<Instant>,
    /// How many users in a row have failed alone.
    single_failures: u32,
    /// The rest of batches in which one user after the other has failed.
    postponed: HashMap<Uuid, UserUpdate>,
    postponed_until: Option<Pause>,
    /// Set where nothing at all can be written.
    stopped: Option<Pause>,
    /// Users per batch. Smaller where triggers of others take too long.
    batch_size: usize,
    turn: u32,
}

impl Default for ChangeWriter {
    fn default() -> ChangeWriter {
        ChangeWriter {
            deferred: HashMap::new(),
            retry_at: None,
            skip_locked: false,
            suspects: Vec::new(),
            set_aside: SetAside::default(),
            set_aside_updates: HashMap::new(),
            set_aside_at: None,
            single_failures: 0,
            postponed: HashMap::new(),
            postponed_until: None,
            stopped: None,
            batch_size: BATCH,
            turn: 0,
        }
    }
}

/// Where a batch comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Queue,
    Suspects,
    SetAside,
}

impl ChangeWriter {
    /// Returns when to write, if there is anything to write.
    pub fn due(&self, tenant: Tenant) -> Option<Instant> {
        // Who applies a large commit wakes the worker at its end.
        tenant.settled(clock::steady())?;
        let now = Instant::now();
        let is_pending = tenant.dirty_users() > 0 || !self.suspects.is_empty();
        let set_aside = self
            .set_aside
            .due()
            .map(|due| due.max(self.set_aside_at.unwrap_or(due)));
        let postponed = self.postponed_until.map(|pause| pause.until);
        let deferred = (!self.deferred.is_empty()).then(|| self.retry_at.unwrap_or(now));
        let due = [is_pending.then_some(now), deferred, set_aside, postponed]
            .into_iter()
            .flatten()
            .min()?;
        Some(self.stopped.map_or(due, |pause| pause.until))
    }

    /// Returns how many users wait because they could not be written.
    pub fn waiting(&self, tenant: Tenant) -> usize {
        let mut waiting = self.set_aside.len() + self.postponed.len();
        if self.stopped.is_some() {
            waiting += self.deferred.len() + tenant.dirty_users() as usize;
        }
        // Where nobody waits, but nothing could be written.
        waiting.max(usize::from(self.stopped.is_some()))
    }

    /// Whether users whom it has taken from the queue are still to be written.
    pub fn holds_back(&self) -> bool {
        let has_written_all = self.deferred.is_empty()
            && self.suspects.is_empty()
            && self.postponed.is_empty()
            && self.set_aside_updates.is_empty();
        !has_written_all
    }

    /// Adds users to those in the roster's queue. Those who wait anyway have another reason.
    pub fn add(&mut self, updates: impl IntoIterator<Item = UserUpdate>) {
        for update in updates {
            let id = update.user.user_id;
            let waiting = match self.set_aside.contains(&id) {
                true => &mut self.set_aside_updates,
                false => &mut self.deferred,
            };
            keep(waiting, update);
        }
    }

    /// Takes a batch of users and writes those whose status has changed. Advances `state` to the last change written.
    pub fn write(&mut self, tenant: Tenant, state: &mut FeedState, declared: &mut DeclaredWatch) -> Batch {
        if self.stopped.is_some() {
            match self.try_nothing(tenant, state) {
                Err(Aborted::Failed(failure)) => {
                    self.stop(tenant, &failure);
                    return Batch::Failed;
                }
                Err(Aborted::Dropped) => return Batch::Dropped,
                Err(_) => return Batch::Blocked,
                Ok(()) => self.stopped = None,
            }
        }
        // Now comes first: whoever was stopped after that is given a grace before it counts.
        let now = tenant.now();
        tenant.note_standstill();
        let (start, taken_at) = (Instant::now(), clock::steady());
        let settled = tenant.settled(taken_at);
        if settled.is_none() {
            return Batch::Empty;
        }
        let (source, mut updates) = self.next_batch(tenant, &now);
        if updates.is_empty() {
            return Batch::Empty;
        }
        if tenant.settled(taken_at) != settled {
            // Their statuses may be from the midst of a large commit.
            self.defer(updates);
            return Batch::Empty;
        }
        fault_point::pause("taken");
        let takes_all = source == Source::Queue && updates.len() < self.batch_size;
        let skip_locked = self.skip_locked || source != Source::Queue;
        let (mut withheld, mut left_out, mut some_locked) = (Vec::new(), Vec::new(), false);
        let limit = Some(write_limit(updates.len()));
        let mut attempt = || {
            run_transaction(Some(tenant), Durability::Flushed, limit, |_| {
                match tenant.is_complete() {
                    true => withheld.extend(split_off_unapplied(tenant, &mut updates)),
                    false => check_table(tenant, &mut updates),
                }
                if tenant.is_visibility_lost() {
                    // Until the worker has looked whether they are hidden.
                    withheld.extend(updates.extract_if(.., |update| update.user.is_unresolved));
                }
                if skip_locked {
                    let locked = feed::split_off_locked(&mut updates);
                    some_locked |= !locked.is_empty();
                    withheld.extend(locked);
                }
                let shown = declared.shown(tenant, &mut updates, &mut left_out);
                let written = feed::write(state, &updates, &shown);
                fault_point::reach("write");
                written
            })
        };
        let mut result = attempt();
        // The forget_user() that was in the way has committed, so the same batch can be written now. Somebody's trigger may
        // raise the same, and take its time.
        let mut retries = 0..MAX_RETRIES;
        while matches!(&result, Err(Aborted::Failed(failure)) if failure.is_serialization_failure())
            && start.elapsed() < RETRY_AFTER
            && retries.next().is_some()
        {
            result = attempt();
        }
        if source == Source::SetAside {
            self.set_aside_at = Some(Instant::now() + start.elapsed() * SET_ASIDE_SHARE);
        }
        match result {
            Ok(Written::Changes(changes)) => {
                let finished = updates.iter().chain(&left_out);
                tenant.finish_taken(finished.map(|update| &update.user.user_id));
                if source == Source::Queue {
                    self.skip_locked = some_locked;
                }
                self.batch_size = (self.batch_size * 2).min(BATCH);
                if source == Source::SetAside {
                    let tried = updates.iter().chain(&withheld).chain(&left_out);
                    self.written_after_all(tried, !changes.is_empty());
                }
                if !changes.is_empty() {
                    self.single_failures = 0;
                }
                self.defer(withheld);
                if takes_all && !self.holds_back() && !declared.is_behind() {
                    tenant.set_written(taken_at);
                }
                if let Some(last) = changes.last() {
                    state.seq = last.seq;
                }
                tenant.worker().changes.add(changes.len() as u64);
                tenant.worker().seq.set(state.seq as u64);
                Batch::Written(changes)
            }
            Ok(Written::StateChanged) => {
                updates.extend(withheld.into_iter().chain(left_out));
                self.defer(updates);
                Batch::StateChanged
            }
            Err(Aborted::Failed(failure)) if skip_locked || !failure.is_lock_conflict() => {
                updates.extend(withheld.into_iter().chain(left_out));
                self.failed(tenant, state, source, updates, &failure)
            }
            Err(Aborted::Dropped) => Batch::Dropped,
            Err(_) => {
                self.skip_locked = true;
                updates.extend(withheld.into_iter().chain(left_out));
                self.defer(updates);
                Batch::Blocked
            }
        }
    }

    /// Finds out what an error concerns: everything, or a part of the batch.
    fn failed(
        &mut self,
        tenant: Tenant,
        state: &FeedState,
        source: Source,
        mut updates: Vec<UserUpdate>,
        failure: &Failure,
    ) -> Batch {
        if source == Source::Queue
            && let Err(Aborted::Failed(failure)) = self.try_nothing(tenant, state)
        {
            self.defer(updates);
            self.stop(tenant, &failure);
            return Batch::Failed;
        }
        trouble::report_part(tenant, Work::Changes, failure, updates.len());
        if failure.is_timeout() {
            self.batch_size = (updates.len() / 2).max(1);
        }
        if let [update] = updates[..] {
            let id = update.user.user_id;
            self.set_aside.add(id, failure);
            if self.set_aside.contains(&id) {
                keep(&mut self.set_aside_updates, update);
            } else {
                keep(&mut self.postponed, update);
            }
            if source != Source::SetAside {
                self.single_failures += 1;
            }
        } else {
            let second = updates.split_off(updates.len() / 2);
            self.suspects.extend([second, updates]);
        }
        if self.single_failures >= MAX_SINGLE_FAILURES {
            // Somebody may be in several groups, having changed again meanwhile, and is to be in one batch once.
            let suspects = self.suspects.drain(..).flatten();
            suspects.for_each(|update| keep(&mut self.postponed, update));
        }
        if !self.postponed.is_empty() && (self.single_failures >= MAX_SINGLE_FAILURES || self.postponed_until.is_none())
        {
            self.single_failures = 0;
            self.postponed_until = Some(Pause::after(self.postponed_until, MAX_TABLE_PAUSE));
        }
        Batch::Failed
    }

    /// Waits for longer before the next attempt to write anything.
    fn stop(&mut self, tenant: Tenant, failure: &Failure) {
        trouble::report(tenant, Work::Changes, failure);
        self.stopped = Some(Pause::after(self.stopped, MAX_TABLE_PAUSE));
    }

    /// Executes the statement without any user: it fails where the tables, not rows, are the reason.
    fn try_nothing(&self, tenant: Tenant, state: &FeedState) -> Result<(), Aborted> {
        run_transaction(Some(tenant), Durability::Flushed, Some(write_limit(0)), |_| {
            declared::try_to_read(tenant);
            feed::write(state, &[], &[]);
        })
    }

    fn written_after_all<'a>(&mut self, updates: impl Iterator<Item = &'a UserUpdate>, has_changed: bool) {
        for update in updates {
            self.set_aside.remove(&update.user.user_id);
            self.set_aside_updates.remove(&update.user.user_id);
        }
        // Nothing had to be written: that proves nothing.
        if has_changed {
            self.set_aside.retry_all();
            self.set_aside_at = None;
        }
    }

    /// Takes the next users to compare, each once, with their status now. The sources take turns.
    fn next_batch(&mut self, tenant: Tenant, now: &Now) -> (Source, Vec<UserUpdate>) {
        const SOURCES: [Source; 3] = [Source::Queue, Source::Suspects, Source::SetAside];
        if let Some(pause) = self.postponed_until
            && Instant::now() >= pause.until
        {
            match self.postponed.is_empty() {
                true => self.postponed_until = None,
                false => self
                    .suspects
                    .push(self.postponed.drain().map(|(_, update)| update).collect()),
            }
        }
        for _ in 0..SOURCES.len() {
            let source = SOURCES[self.turn as usize % SOURCES.len()];
            self.turn = self.turn.wrapping_add(1);
            let updates = match source {
                Source::Queue => self.next_of_queue(tenant, now),
                Source::Suspects => self.next_suspects(tenant, now),
                Source::SetAside => self.next_set_aside(tenant, now),
            };
            if !updates.is_empty() {
                return (source, updates);
            }
        }
        (Source::Queue, Vec::new())
    }

    fn next_suspects(&mut self, tenant: Tenant, now: &Now) -> Vec<UserUpdate> {
        while let Some(group) = self.suspects.pop() {
            let (waiting, group): (Vec<_>, Vec<_>) = group
                .into_iter()
                .partition(|update| self.set_aside.contains(&update.user.user_id));
            self.add(waiting);
            if !group.is_empty() {
                return group.into_iter().map(|update| current(tenant, update, now)).collect();
            }
        }
        Vec::new()
    }

    fn next_set_aside(&mut self, tenant: Tenant, now: &Now) -> Vec<UserUpdate> {
        if self.set_aside_at.is_some_and(|at| Instant::now() < at) {
            return Vec::new();
        }
        let due = self.set_aside.next_due();
        let update = due.and_then(|id| self.set_aside_updates.get(&id).copied());
        update.map(|update| current(tenant, update, now)).into_iter().collect()
    }

    fn next_of_queue(&mut self, tenant: Tenant, now: &Now) -> Vec<UserUpdate> {
        let mut dirty = tenant.take_dirty(self.batch_size, settings::active_timeout(), now);
        if self.set_aside.len() > 0 {
            dirty.retain(|user| {
                let is_set_aside = self.set_aside.contains(&user.user_id);
                if is_set_aside {
                    let update = newer(&mut self.set_aside_updates, *user);
                    self.set_aside_updates.insert(user.user_id, update);
                }
                !is_set_aside
            });
        }
        let is_retry_due = self.retry_at.is_none_or(|at| Instant::now() >= at);
        if self.deferred.is_empty() {
            self.retry_at = None;
            return dirty.into_iter().map(UserUpdate::from).collect();
        }
        let mut updates: HashMap<Uuid, UserUpdate> = HashMap::with_capacity(dirty.len());
        for user in dirty {
            updates.insert(user.user_id, newer(&mut self.deferred, user));
        }
        if is_retry_due {
            self.retry_at = None;
            let room = self.batch_size.saturating_sub(updates.len());
            let ids: Vec<Uuid> = self.deferred.keys().copied().take(room).collect();
            for id in ids {
                if let Some(deferred) = self.deferred.remove(&id) {
                    updates.insert(id, current(tenant, deferred, now));
                }
            }
        }
        updates.into_values().collect()
    }

    fn defer(&mut self, updates: Vec<UserUpdate>) {
        if !updates.is_empty() {
            // Who waits already does not wait for longer.
            self.retry_at.get_or_insert_with(|| Instant::now() + RETRY_AFTER);
            self.add(updates);
        }
    }
}

/// Keeps an update of a user. Where there is one already, that one's reason counts.
fn keep(waiting: &mut HashMap<Uuid, UserUpdate>, update: UserUpdate) {
    waiting.entry(update.user.user_id).or_insert(update).merge(&update);
}

/// Returns the update of a user from the queue, whose reason is newer than that of the one that waits, which is removed.
fn newer(waiting: &mut HashMap<Uuid, UserUpdate>, user: DirtyUser) -> UserUpdate {
    let mut update = UserUpdate::from(user);
    if let Some(older) = waiting.remove(&user.user_id) {
        update.merge(&older);
    }
    update
}

/// Makes `_feed_state` one row that belongs here, in a transaction of its own, and returns its state.
pub fn reconcile_state(tenant: Tenant) -> Result<FeedState, Aborted> {
    run_transaction(Some(tenant), Durability::Flushed, None, |_| feed_state::reconcile())
}
