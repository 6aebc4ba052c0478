//! Sessions that come from the table: all of them when serving begins, one at a time where a call misses.

use super::{
    atomic::uuid_words,
    clock::Now,
    deadline::deadline,
    flush::FlushRow,
    free_list::Full,
    lock::{self, Index},
    state::{SessionFlag, SessionState},
    tenant::Tenant,
    write::{Effect, Reservation, RowImage},
    writer::Writer,
};
use crate::{
    rules::{status::Reason, time::Micros},
    settings,
};

impl Writer {
    /// Fills a slot that no commit has been applied to. It was reserved for the row, or for an uncommitted write of the
    /// same session, whose token, owner and user are then replaced by the row's.
    fn fill(&self, reservation: &Reservation, row: &RowImage, resumed: bool, stamp: u64, timeout: Micros, now: &Now) {
        let roster = self.roster;
        let at = reservation.slot;
        let slot = &roster.slots[at as usize];
        let user = &roster.users[reservation.user as usize];
        if slot.state.get() != SessionState::Empty || user.id.get() != uuid_words(&row.user_id) {
            return;
        }
        self.adopt(reservation, row);
        slot.stamp.set(stamp);
        slot.last_activity.set(now.activity(row.last_activity));
        slot.expires_at.set(row.expires_at);
        slot.release_at.clear();
        let tenant = roster.tenant_of(slot);
        let is_in_grace =
            now.steady < tenant.grace_until.get() && tenant.grace_covers(slot.last_activity.get(), timeout);
        slot.flags.clear();
        slot.flags.assign(SessionFlag::TableInactive, !row.is_active);
        slot.flags.assign(SessionFlag::Recovered, is_in_grace);
        self.set_flushed(at, row.last_activity, now);
        if let Some(since) = row.idle_since {
            self.load_idle(at, since, now);
        }
        if (row.is_active || resumed) && now.steady < deadline(slot, tenant, timeout, now) {
            self.set_state(at, SessionState::Live, Reason::Resumed);
            // Idle before the grace began, which is for who is not.
            self.set_idle(at, row.idle_since.is_some());
            self.update_idle(at, now);
            roster.schedule_sweep(at, timeout, now);
        } else {
            self.set_state(at, SessionState::TimedOut, Reason::TimedOut);
        }
    }

    /// Notes that the user of a session was idle when the server stopped, and so is until heard of.
    fn load_idle(&self, at: u32, since: Micros, now: &Now) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let active_at = match (now.is_future(since), settings::idle_timeout()) {
            // The clock was set back.
            (true, Some(timeout)) => now.steady.minus(timeout),
            _ => now.activity(since),
        };
        let bucket = roster.id_bucket(slot.tenant.get() as usize, slot.id.get());
        let _held = lock::exclusive(Index::Id, bucket);
        self.set_unattended_locked(at, active_at);
    }
}

impl Tenant {
    /// Begins a load of the table: returns the stamp its rows are filed under. To be called once the table is locked, and
    /// before the snapshot is taken; to be followed by [`Tenant::end_load`].
    pub fn begin_load(&self) -> u64 {
        self.roster().synchronize_clock();
        self.note_standstill();
        self.grace_until();
        self.lose_visibility();
        {
            let _writer = self.roster().write();
            self.entry().overflow.set(0);
        }
        // Published as in flight, so that nobody frees the tombstone of an end that the load's snapshot does not see.
        self.roster().take_stamp_for_load()
    }

    /// Puts a row of the table into the roster, unless the roster knows the session already. `stamp` is from
    /// [`Tenant::begin_load`]. A user is queued only if the session is being written right now: a load is followed by a
    /// comparison of all users.
    ///
    /// `resumed`: the table has the session timed out, but its user was last published as online, so it was heard from
    /// again since, and gets the same grace period as those that are active.
    pub fn load_row(&self, row: &RowImage, resumed: bool, stamp: u64, timeout: Micros) -> Result<(), Full> {
        let roster = self.roster();
        let now = roster.now();
        let writer = roster.write_for_load();
        let words = uuid_words(&row.id);
        let bucket = roster.id_bucket(self.index(), words);
        let is_known = roster.find_id(self.index(), bucket, words).is_some_and(|at| {
            let slot = &roster.slots[at as usize];
            slot.state.get() != SessionState::Empty && roster.survives_truncate(slot)
        });
        if !is_known {
            let reservation = match writer.reserve(self.index(), row) {
                Ok(reservation) => reservation,
                Err(full) => {
                    self.set_overflow_locked(&writer);
                    return Err(full);
                }
            };
            writer.fill(&reservation, row, resumed, stamp, timeout, &now);
            // Its commit, which the load's snapshot sees, is still to be applied, and will find nothing to tell then.
            let slot = &roster.slots[reservation.slot as usize];
            if slot.pins.get() > 1 && slot.state.get() == SessionState::Live {
                writer.queue(reservation.user, Reason::Started);
            }
            writer.unpin(reservation);
        }
        Ok(())
    }

    /// Ends a load. If it was whole, and the roster has not been full since it began, the roster is complete: it knows
    /// every session that has not ended. Returns whether it is. A load that was interrupted says nothing about room.
    pub fn end_load(&self, whole: bool) -> bool {
        self.roster().clear_inflight();
        let _writer = self.roster().write();
        let entry = self.entry();
        let complete = whole && entry.overflow.get() == 0;
        if complete {
            entry.complete.set(1);
        }
        complete
    }

    /// Makes sessions what their rows are, of which nobody has told the roster; ends those whose row has ended or is not
    /// there. Those that have been written since they were collected are left as that write has made them. Returns false
    /// if the roster is full. Cannot fail.
    pub fn refresh<'a>(
        &self,
        sessions: impl Iterator<Item = (&'a FlushRow, Option<&'a RowImage>)>,
        timeout: Micros,
    ) -> bool {
        self.note_standstill();
        self.lose_visibility();
        let now = self.roster().synchronize_clock();
        let mut is_whole = true;
        for (known, row) in sessions {
            let writer = self.roster().write();
            let Some(at) = self.find_locked(&writer, &known.id) else {
                continue;
            };
            let slot = &self.roster().slots[at as usize];
            let is_known = matches!(slot.state.get(), SessionState::Live | SessionState::TimedOut);
            if !is_known || slot.stamp.get() != known.stamp {
                continue;
            }
            // The slot keeps its stamp. So a write in flight, whose stamp is later, is still applied to it, whether the row
            // has it already or not.
            let Some(row) = row.filter(|row| !row.ended) else {
                writer.end(at, row.is_none(), timeout, &now);
                continue;
            };
            match writer.reserve(self.index(), row) {
                Ok(reservation) => {
                    writer.update(&reservation, row, &Effect::default(), timeout, &now);
                    writer.unpin(reservation);
                }
                Err(Full) => {
                    self.set_overflow_locked(&writer);
                    is_whole = false;
                }
            }
        }
        is_whole
    }

    /// Pins a slot for a row that is about to be read again, so that an end in between leaves its mark there. Returns the
    /// reservation, and the stamp to fill the slot under.
    pub fn pin(&self, row: &RowImage) -> Result<(Reservation, u64), Full> {
        self.roster().synchronize_clock();
        self.note_standstill();
        self.grace_until();
        let reservation = self.reserve(row)?;
        Ok((reservation, self.roster().load_stamp()))
    }

    /// Fills a pinned slot with the row as it was read after the pinning, unless a commit has been applied since, and
    /// unpins it.
    pub fn fill(&self, reservation: Reservation, row: Option<&RowImage>, stamp: u64, timeout: Micros) {
        let now = self.roster().now();
        let writer = self.roster().write();
        if let Some(row) = row {
            // A silent session is loaded as timed out, whatever the table says; during the grace period after a restart
            // it is live.
            writer.fill(&reservation, row, false, stamp, timeout, &now);
        }
        writer.unpin(reservation);
    }
}
