//! What the table does not know yet of sessions: newer activity, another `is_active`, an end by expiry.

use uuid::Uuid;

use super::{
    Space,
    cell::words_uuid,
    layout::Slot,
    state::{EMPTY, END_UNWRITTEN, ENDED, LIVE, TABLE_INACTIVE, TIMED_OUT},
    units,
};
use crate::core::time::Micros;

/// A row of `user_sessions` to write.
#[derive(Clone, Copy, Debug)]
pub struct FlushRow {
    slot: u32,
    pub id: Uuid,
    pub last_activity: Micros,
    pub is_active: bool,
    /// When the session ended, for one that expired.
    pub ended_at: Option<Micros>,
}

/// Which rows to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those whose state the table has wrong.
    State,
    /// Those too whose `last_activity` is newer than the table's.
    All,
}

fn is_candidate(slot: &Slot, which: Which, origin: Micros) -> bool {
    let table_active = !slot.flags.has(TABLE_INACTIVE);
    match slot.state.get() {
        LIVE if !table_active => true,
        TIMED_OUT if table_active => true,
        LIVE | TIMED_OUT => {
            which == Which::All
                && units::ceil(slot.last_activity.get(), origin) > slot.flushed.get()
        }
        ENDED => slot.flags.has(END_UNWRITTEN),
        _ => false,
    }
}

impl Space {
    /// Up to `max` rows to write, from `cursor` on; `cursor` moves behind them, and is back at 0 once all slots have
    /// been looked at.
    pub fn flush_candidates(&self, cursor: &mut u32, max: usize, which: Which) -> Vec<FlushRow> {
        let roster = self.roster();
        let origin = roster.header.origin.get();
        let ever = roster.header.heap.slots_ever.get();
        let mut rows = Vec::with_capacity(max);
        let mut at = *cursor;
        while at < ever && rows.len() < max {
            let slot = &roster.slots[at as usize];
            // A first look without the lock; the lock only where there is something to write.
            if slot.space.get() as usize == self.index() && is_candidate(slot, which, origin) {
                let writer = roster.write();
                if slot.space.get() as usize == self.index()
                    && writer.in_use(at)
                    && roster.stands(slot)
                    && is_candidate(slot, which, origin)
                {
                    let ended = slot.state.get() == ENDED;
                    // Within the capacity reserved above: nothing is allocated under the lock.
                    rows.push(FlushRow {
                        slot: at,
                        id: words_uuid(slot.id.words()),
                        last_activity: slot.last_activity.get(),
                        is_active: slot.state.get() == LIVE,
                        ended_at: ended.then(|| slot.expires_at.get()),
                    });
                }
                drop(writer);
            }
            at += 1;
        }
        *cursor = if at >= ever { 0 } else { at };
        rows
    }

    /// Notes that the table has what `rows` say. To be called after the commit.
    pub fn flushed<'a>(&self, rows: impl IntoIterator<Item = &'a FlushRow>) {
        let roster = self.roster();
        let origin = roster.header.origin.get();
        for row in rows {
            let writer = roster.write();
            let slot = &roster.slots[row.slot as usize];
            let same = writer.in_use(row.slot)
                && slot.space.get() as usize == self.index()
                && words_uuid(slot.id.words()) == row.id;
            if same && slot.state.get() != EMPTY {
                slot.flushed.set(units::ceil(row.last_activity, origin));
                slot.flags.assign(TABLE_INACTIVE, !row.is_active);
                if row.ended_at.is_some() && slot.state.get() == ENDED {
                    slot.flags.assign(END_UNWRITTEN, false);
                }
            }
            drop(writer);
        }
    }

    /// The oldest activity that the table does not have yet, if any.
    pub fn oldest_unflushed(&self) -> Option<Micros> {
        let roster = self.roster();
        let origin = roster.header.origin.get();
        let ever = roster.header.heap.slots_ever.get() as usize;
        roster.slots[..ever]
            .iter()
            .filter(|slot| slot.space.get() as usize == self.index())
            .filter(|slot| is_candidate(slot, Which::All, origin))
            .map(|slot| slot.last_activity.get())
            .min()
    }
}
