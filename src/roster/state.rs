//! The states and flags of sessions and users in the roster. [`super::writer`] draws the transitions.

use super::atomic::{Flag, SharedU8};

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SessionState {
    /// No session: the slot is free, or reserved by a transaction or a load that is about to write it.
    Empty = 0,
    /// Live when last checked.
    Live = 1,
    /// Silent for too long; a beat resumes it.
    TimedOut = 2,
    /// Ended for good: a tombstone.
    Ended = 3,
}

/// A [`SessionState`] in shared memory.
#[repr(transparent)]
pub struct SharedState(SharedU8);

impl SharedState {
    #[inline]
    pub fn get(&self) -> SessionState {
        // Two bits, of which every value is a state.
        match self.0.get() & 3 {
            0 => SessionState::Empty,
            1 => SessionState::Live,
            2 => SessionState::TimedOut,
            _ => SessionState::Ended,
        }
    }

    #[inline]
    pub fn set(&self, state: SessionState) {
        self.0.set(state as u8);
    }
}

/// What is known of a session besides its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SessionFlag {
    /// Loaded when serving began, and not heard from since: live until the grace period has passed.
    Recovered = 1,
    /// The table has `is_active = false`.
    TableInactive = 2,
    /// The worker has ended the session, and not written that to the table yet.
    EndUnwritten = 4,
    /// An ended session whose row is deleted: every call answers as if there were none.
    Deleted = 8,
    /// The last heartbeat said that nobody is at it; `Roster::active_at` has when somebody last was. Changed under the
    /// writers' lock.
    Unattended = 16,
    /// A live session that is counted as idle. Changed under the writers' lock.
    Idle = 32,
    /// A live session that is bound to a connection; see [`super::binding`]. Changed under the writers' lock.
    Bound = 64,
    /// One that was not live when its user, who had been hidden, was shown again: to others it starts when it is live again.
    Unseen = 128,
}

impl Flag for SessionFlag {
    #[inline]
    fn mask(self) -> u8 {
        self as u8
    }
}

/// What is known of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UserFlag {
    /// In the queue of dirty users.
    Dirty = 1,
    /// Has a key that cannot be derived from its id.
    Keyed = 2,
    /// Is in the queue, and had no session when it was queued.
    QueuedAbsent = 4,
    /// The worker has taken it out of the queue, and has not written it yet: nothing else may have its last activity.
    Taken = 8,
    /// Nobody has looked yet whether it is hidden; see [`super::hidden`]. Changed as the user's `hidden_until`.
    Unresolved = 16,
    /// A transaction pins it that hides it or shows it again.
    VisibilityPinned = 32,
    /// Two of them have pinned it at once: their order is not known here.
    Contended = 64,
    /// Unresolved by the worker, which alone resolves it then, by what it reads after that.
    Reread = 128,
}

impl Flag for UserFlag {
    #[inline]
    fn mask(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back_from_shared_memory() {
        // SAFETY: zeroes are a valid atomic.
        let shared: SharedState = unsafe { std::mem::zeroed() };
        assert_eq!(shared.get(), SessionState::Empty);
        for state in [
            SessionState::Live,
            SessionState::TimedOut,
            SessionState::Ended,
            SessionState::Empty,
        ] {
            shared.set(state);
            assert_eq!(shared.get(), state);
        }
    }

    #[test]
    fn no_two_flags_share_a_bit() {
        use SessionFlag::{Bound, Deleted, EndUnwritten, Idle, Recovered, TableInactive, Unattended, Unseen};
        let masks = [
            Recovered,
            TableInactive,
            EndUnwritten,
            Deleted,
            Unattended,
            Idle,
            Bound,
            Unseen,
        ]
        .map(Flag::mask);
        assert_eq!(masks.iter().fold(0, |all, mask| all | mask), masks.iter().sum::<u8>());
        let masks = [
            UserFlag::Dirty,
            UserFlag::Keyed,
            UserFlag::QueuedAbsent,
            UserFlag::Taken,
            UserFlag::Unresolved,
            UserFlag::VisibilityPinned,
            UserFlag::Contended,
            UserFlag::Reread,
        ]
        .map(Flag::mask);
        assert_eq!(masks.iter().fold(0, |all, mask| all | mask), masks.iter().sum::<u8>());
    }
}
