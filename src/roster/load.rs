//! Sessions that come from the table: all of them at the start of service, one at a time where a call misses.

use super::{
    Full, Space,
    cell::uuid_words,
    state::{self, EMPTY, LIVE, RECOVERED, TABLE_INACTIVE, TIMED_OUT},
    units,
    write::{Image, Reserved, Writer},
};
use crate::{
    compat,
    core::{status::Reason, time::Micros},
};

/// A slot held while its row is read.
pub type Pinned = Reserved;

/// A row as it was read.
pub type LoadedRow = Image;

impl Writer {
    /// Fills a slot that nobody has said anything about yet. It was reserved for the row, or for a write of the same
    /// session that is not committed, whose token, owner and user are then replaced by the row's.
    fn fill(
        &self,
        reserved: &Reserved,
        row: &Image,
        resumed: bool,
        stamp: u64,
        timeout: Micros,
        now: Micros,
    ) {
        let roster = self.roster;
        let at = reserved.slot;
        let slot = &roster.slots[at as usize];
        let user = &roster.users[reserved.user as usize];
        if slot.state.get() != EMPTY || user.id.words() != uuid_words(&row.user_id) {
            return;
        }
        self.adopt(reserved, row);
        slot.stamp.set(stamp);
        slot.last_activity.set(row.last_activity);
        slot.expires_at.set(row.expires_at);
        slot.release_at.set(0);
        slot.flags.set(0);
        slot.flags.assign(TABLE_INACTIVE, !row.is_active);
        let space = roster.space_of(slot);
        slot.flags.assign(RECOVERED, now < space.grace_until.get());
        slot.flushed
            .set(units::ceil(row.last_activity, roster.header.origin.get()));
        let deadline = state::deadline(slot, space, timeout);
        if (row.is_active || resumed) && now < deadline {
            self.set_state(at, LIVE, Reason::Resumed);
            roster.expect(at, deadline, timeout);
        } else {
            self.set_state(at, TIMED_OUT, Reason::TimedOut);
        }
    }
}

impl Space {
    /// Puts a row of the table into the roster, unless the roster knows the session already. `stamp` is from
    /// [`Space::begin_load`]. Nobody is told: the load is followed by a comparison of all users.
    ///
    /// `resumed`: the table has the session timed out, but its user was last told to be online, so it was heard of
    /// again since, and is given the same grace as those that are active.
    pub fn load_row(
        &self,
        row: &LoadedRow,
        resumed: bool,
        stamp: u64,
        timeout: Micros,
    ) -> Result<(), Full> {
        let now = compat::now();
        let writer = self.roster().write_quietly();
        let words = uuid_words(&row.id);
        let bucket = self.roster().id_bucket(self.index(), words);
        let known = self
            .roster()
            .find_id(self.index(), bucket, words)
            .is_some_and(|at| {
                let slot = &self.roster().slots[at as usize];
                slot.state.get() != EMPTY && self.roster().stands(slot)
            });
        let loaded = if known {
            Ok(())
        } else {
            writer.reserve(self.index(), row).map(|reserved| {
                writer.fill(&reserved, row, resumed, stamp, timeout, now);
                writer.let_go(reserved);
            })
        };
        writer.done();
        loaded
    }

    /// Holds a slot for a row that is about to be read again, so that an end in between leaves its mark there.
    pub fn pin(&self, row: &LoadedRow) -> Result<(Pinned, u64), Full> {
        self.grace_until();
        let pinned = self.reserve(row)?;
        Ok((pinned, self.roster().load_stamp()))
    }

    /// Fills a pinned slot with the row as it was read after the pinning, if nothing was said of it since, and lets
    /// go of it.
    pub fn fill(&self, pinned: Pinned, row: Option<&LoadedRow>, stamp: u64, timeout: Micros) {
        let now = compat::now();
        let writer = self.roster().write();
        if let Some(row) = row {
            // Loading a silent session makes it timed out, whatever the table says; while the grace after a
            // restart lasts it is live.
            writer.fill(&pinned, row, false, stamp, timeout, now);
        }
        writer.let_go(pinned);
        writer.done();
    }

    /// Rewrites what the sweep looks at, after `presence.active_timeout` has changed.
    pub fn retime(&self, timeout: Micros) {
        self.for_each_slot(|writer, at| {
            let slot = &writer.roster.slots[at as usize];
            if slot.state.get() == LIVE {
                let space = writer.roster.space_of(slot);
                writer
                    .roster
                    .expect(at, state::deadline(slot, space, timeout), timeout);
            }
            false
        });
    }
}
