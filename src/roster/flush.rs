//! What the table does not have yet of sessions: newer activity, another `is_active`, an end by expiry.

use uuid::Uuid;

use super::{
    atomic::words_uuid,
    clock::Now,
    layout::Slot,
    state::{SessionFlag, SessionState},
    sweep_clock,
    tenant::Tenant,
};
use crate::rules::time::{Micros, SteadyTime};

/// A row of `user_sessions` to write.
#[derive(Clone, Copy, Debug)]
pub struct FlushRow {
    slot: u32,
    /// That of the session's last write.
    pub(super) stamp: u64,
    pub id: Uuid,
    activity: SteadyTime,
    /// The same, by the time of day.
    pub last_activity: Micros,
    pub is_active: bool,
    /// When the session ended, for one that expired.
    pub ended_at: Option<Micros>,
}

/// Which rows to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushScope {
    /// Those whose state differs in the table.
    States,
    /// These, and those whose `last_activity` is newer than the table's.
    All,
    /// Every session that has not ended, to be compared with the table.
    Known,
}

fn is_candidate(slot: &Slot, scope: FlushScope, origin: SteadyTime, now: SteadyTime) -> bool {
    if scope == FlushScope::Known {
        return matches!(slot.state.get(), SessionState::Live | SessionState::TimedOut);
    }
    let table_active = !slot.flags.has(SessionFlag::TableInactive);
    match slot.state.get() {
        SessionState::Live if !table_active => true,
        SessionState::TimedOut if table_active => true,
        SessionState::Live | SessionState::TimedOut => {
            scope == FlushScope::All && sweep_clock::ceil(slot.activity(now), origin) > slot.flushed.get()
        }
        SessionState::Ended => slot.flags.has(SessionFlag::EndUnwritten),
        SessionState::Empty => false,
    }
}

impl Tenant {
    /// Returns up to `max` rows to write, from `cursor` on; `cursor` moves behind them, and is back at 0 once all slots
    /// have been checked.
    pub fn flush_candidates(&self, cursor: &mut u32, max: usize, scope: FlushScope, now: &Now) -> Vec<FlushRow> {
        let roster = self.roster();
        let origin = roster.header.origin.get();
        let mut rows = Vec::with_capacity(max);
        let slots = roster.slot_blocks.entries_of(self.index(), *cursor);
        *cursor = 0;
        for at in slots {
            if rows.len() == max {
                *cursor = at;
                break;
            }
            let slot = &roster.slots[at as usize];
            // Checked first without the lock, which is taken only where there is something to write.
            if slot.tenant.get() as usize == self.index() && is_candidate(slot, scope, origin, now.steady) {
                let writer = roster.write();
                if slot.tenant.get() as usize == self.index()
                    && writer.in_use(at)
                    && roster.survives_truncate(slot)
                    && is_candidate(slot, scope, origin, now.steady)
                {
                    let (state, activity) = (slot.state.get(), slot.activity(now.steady));
                    // Within the capacity reserved above: nothing is allocated under the lock.
                    rows.push(FlushRow {
                        slot: at,
                        stamp: slot.stamp.get(),
                        id: words_uuid(slot.id.get()),
                        activity,
                        last_activity: now.to_wall(activity),
                        is_active: state == SessionState::Live,
                        ended_at: (state == SessionState::Ended).then(|| slot.expires_at.get()),
                    });
                }
                drop(writer);
            }
        }
        rows
    }

    /// Notes that the table has what is in `rows`. To be called after the commit.
    pub fn mark_flushed<'a>(&self, rows: impl IntoIterator<Item = &'a FlushRow>) {
        let roster = self.roster();
        let origin = roster.header.origin.get();
        for row in rows {
            let writer = roster.write();
            let slot = &roster.slots[row.slot as usize];
            let is_same = writer.in_use(row.slot)
                && slot.tenant.get() as usize == self.index()
                && words_uuid(slot.id.get()) == row.id;
            if is_same && slot.state.get() != SessionState::Empty {
                slot.flushed.set(sweep_clock::ceil(row.activity, origin));
                slot.flags.assign(SessionFlag::TableInactive, !row.is_active);
                if row.ended_at.is_some() && slot.state.get() == SessionState::Ended {
                    slot.flags.assign(SessionFlag::EndUnwritten, false);
                }
            }
            drop(writer);
        }
    }

    /// Has the activity of all sessions written again, after the clock was set: what the table has is no time of this
    /// clock. For the worker.
    pub fn reflush_all(&self) {
        self.for_each_slot(|writer, at| {
            writer.roster.slots[at as usize].flushed.set(0);
            false
        });
    }

    /// The oldest activity that the table does not have yet, if any.
    pub fn oldest_unflushed(&self) -> Option<SteadyTime> {
        let roster = self.roster();
        let (origin, now) = (roster.header.origin.get(), self.now().steady);
        let slots = roster.slot_blocks.entries_of(self.index(), 0);
        slots
            .map(|at| &roster.slots[at as usize])
            .filter(|slot| slot.tenant.get() as usize == self.index())
            .filter(|slot| is_candidate(slot, FlushScope::All, origin, now))
            // What is written again after the clock was set, the table has.
            .filter(|slot| slot.flushed.get() != 0)
            .map(|slot| slot.activity(now))
            .min()
    }
}
