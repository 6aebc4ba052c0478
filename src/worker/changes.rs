//! Changes of status: from the roster's queue to the tables.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::attempt::{Durability, Undone, attempt};
use crate::{
    compat,
    core::{feed::Change, status::Reason},
    faults,
    roster::Space,
    settings,
    store::{
        feed::{self, Look, Written},
        load,
        state::{self, State},
    },
};

/// Users in one batch.
const BATCH: usize = 5000;
/// How long users wait whose batch found somebody in its way.
pub const IN_THE_WAY: Duration = Duration::from_millis(200);

/// What came of a batch.
pub enum Batch {
    /// There was nothing to look at.
    Nothing,
    /// Users have been looked at; these have changed.
    Done(Vec<Change>),
    /// `presence_state` has been changed by somebody else; it has to be settled again.
    Elsewhere,
    /// It has to wait for somebody.
    Waits,
    /// The extension is gone, or it is another one.
    Gone,
}

/// Users whose change could not be written yet, and how the next batch has to be written.
#[derive(Default)]
pub struct Changes {
    held: HashMap<Uuid, Look>,
    held_until: Option<Instant>,
    /// The last batch met a locked row: look for locked rows before the next one.
    careful: bool,
}

impl Changes {
    /// When users are to be looked at that are not in the roster's queue.
    pub fn due(&self) -> Option<Instant> {
        (!self.held.is_empty()).then(|| self.held_until.unwrap_or_else(Instant::now))
    }

    /// Looks at users besides those in the roster's queue.
    pub fn also(&mut self, looks: impl IntoIterator<Item = Look>) {
        self.held
            .extend(looks.into_iter().map(|look| (look.user.user_id, look)));
    }

    /// Takes a batch of users and writes those whose status has changed. `state` moves on with what was written.
    pub fn write(&mut self, space: Space, state: &mut State) -> Batch {
        let mut looks = self.take(space);
        if looks.is_empty() {
            return Batch::Nothing;
        }
        let careful = self.careful;
        let mut aside = Vec::new();
        let result = attempt(Some(space), Durability::Flushed, |_| {
            if !space.is_complete() {
                ask_the_table(space, &mut looks);
            }
            if careful {
                aside = feed::set_aside_locked(&mut looks);
            }
            let written = feed::write(state, &looks);
            faults::moment("write");
            written
        });
        match result {
            Ok(Written::Changes(changes)) => {
                self.careful = !aside.is_empty();
                self.hold(aside);
                if let Some(last) = changes.last() {
                    state.seq = last.seq;
                }
                space.worker().changes.add(changes.len() as u64);
                space.worker().seq.set(state.seq as u64);
                Batch::Done(changes)
            }
            Ok(Written::Elsewhere) => {
                looks.extend(aside);
                self.hold(looks);
                Batch::Elsewhere
            }
            Err(Undone::InTheWay | Undone::QueueFull) => {
                self.careful = true;
                looks.extend(aside);
                self.hold(looks);
                Batch::Waits
            }
            Err(Undone::Gone) => Batch::Gone,
        }
    }

    /// The next users to look at, each once, with their status as it is now.
    fn take(&mut self, space: Space) -> Vec<Look> {
        let (now, timeout) = (compat::now(), settings::active_timeout());
        let dirty = space.take_dirty(BATCH, timeout, now);
        let held_due = self.held_until.is_none_or(|until| Instant::now() >= until);
        if self.held.is_empty() {
            return dirty.into_iter().map(Look::from).collect();
        }
        // A user from the queue is newer than the same user held.
        let mut looks: HashMap<Uuid, Look> = HashMap::with_capacity(dirty.len());
        for user in dirty {
            self.held.remove(&user.user_id);
            looks.insert(user.user_id, user.into());
        }
        if held_due {
            self.held_until = None;
            let room = BATCH.saturating_sub(looks.len());
            let ids: Vec<Uuid> = self.held.keys().copied().take(room).collect();
            for id in ids {
                if let Some(held) = self.held.remove(&id) {
                    let mut user = space.as_dirty(&id, held.user.reason, now, timeout);
                    user.last_seen = user.last_seen.max(held.user.last_seen);
                    user.keyed |= held.user.keyed;
                    looks.insert(
                        id,
                        Look {
                            user,
                            reason: held.reason,
                        },
                    );
                }
            }
        }
        looks.into_values().collect()
    }

    fn hold(&mut self, looks: Vec<Look>) {
        if !looks.is_empty() {
            self.held_until = Some(Instant::now() + IN_THE_WAY);
            self.also(looks);
        }
    }
}

/// Where the roster does not know every session: who is inactive by the roster may have a live session in the table.
fn ask_the_table(space: Space, looks: &mut [Look]) {
    let inactive: Vec<Uuid> = looks
        .iter()
        .filter(|look| !look.user.active)
        .map(|look| look.user.user_id)
        .collect();
    if inactive.is_empty() {
        return;
    }
    let live = load::users_live_in_table(
        space,
        Some(&inactive),
        compat::now(),
        settings::active_timeout(),
    );
    for look in looks {
        if live.contains(&look.user.user_id) {
            look.user.active = true;
            // The reason was one for becoming inactive.
            look.reason = None;
        }
    }
}

/// Compares all users of the tables with the roster, and gives those who differ. `reason`: why they do, if it is known.
/// To be called in a transaction.
pub fn compare(space: Space, reason: Option<Reason>) -> Vec<Look> {
    let (now, timeout) = (compat::now(), settings::active_timeout());
    // First what was written, then what is: whoever changes in between is in the roster's queue.
    let mut written_online = load::online_users();
    let mut active = space.active_users(now, timeout);
    if !space.is_complete() {
        let known: std::collections::HashSet<Uuid> =
            active.iter().map(|user| user.user_id).collect();
        let in_table = load::users_live_in_table(space, None, now, timeout);
        for id in in_table.into_iter().filter(|id| !known.contains(id)) {
            let mut user = space.as_dirty(&id, Reason::Started, now, timeout);
            user.active = true;
            active.push(user);
        }
    }
    let mut looks = Vec::new();
    for user in active {
        if !written_online.remove(&user.user_id) {
            looks.push(Look { user, reason });
        }
    }
    for id in written_online {
        let user = space.as_dirty(&id, Reason::Deleted, now, timeout);
        looks.push(Look { user, reason });
    }
    looks
}

/// Makes sure that `presence_state` is one row that belongs here.
pub fn settle(space: Space) -> Result<State, Undone> {
    attempt(Some(space), Durability::Flushed, |_| state::settle())
}
