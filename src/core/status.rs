//! What a user shows, what a session is, and why a user's status changed.

use super::time::Micros;

/// What a user shows to the others, `presence_status` in SQL. The numbers are kept in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    Inactive = 0,
    Active = 1,
    /// Reserved: no session can be idle yet.
    Idle = 2,
    /// Reserved: no user can declare a status yet.
    Busy = 3,
}

impl Status {
    pub const ALL: [Status; 4] = [Status::Active, Status::Idle, Status::Busy, Status::Inactive];

    /// The status of a user with or without a live session.
    pub const fn of(live: bool) -> Status {
        if live {
            Status::Active
        } else {
            Status::Inactive
        }
    }

    /// Its label in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Idle => "idle",
            Status::Busy => "busy",
            Status::Inactive => "inactive",
        }
    }

    /// The status with this label in SQL.
    pub fn parse(label: &str) -> Option<Status> {
        Status::ALL
            .into_iter()
            .find(|status| status.as_str() == label)
    }

    /// The status with this number.
    pub fn from_repr(number: u8) -> Option<Status> {
        Status::ALL
            .into_iter()
            .find(|status| *status as u8 == number)
    }

    /// Whether the user has a live session: every status but 'inactive'.
    pub const fn is_online(self) -> bool {
        !matches!(self, Status::Inactive)
    }
}

/// Why the status of a user changed, `presence_changes.reason` in SQL. The numbers are kept in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// A session began.
    Started = 0,
    /// A timed out session was heard from again.
    Resumed = 1,
    /// Logout.
    Ended = 2,
    /// A released session was not heard from within its grace.
    Released = 3,
    /// Silence longer than the timeout.
    TimedOut = 4,
    /// The absolute end of the session.
    Expired = 5,
    /// The session's row, or the user, was deleted.
    Deleted = 6,
    /// Found so when serving began: not heard from since before the server stopped.
    Recovered = 7,
}

impl Reason {
    pub const ALL: [Reason; 8] = [
        Reason::Started,
        Reason::Resumed,
        Reason::Ended,
        Reason::Released,
        Reason::TimedOut,
        Reason::Expired,
        Reason::Deleted,
        Reason::Recovered,
    ];

    /// Its text in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Started => "started",
            Reason::Resumed => "resumed",
            Reason::Ended => "ended",
            Reason::Released => "released",
            Reason::TimedOut => "timed_out",
            Reason::Expired => "expired",
            Reason::Deleted => "deleted",
            Reason::Recovered => "recovered",
        }
    }

    /// The reason with this number.
    pub fn from_repr(number: u8) -> Option<Reason> {
        Reason::ALL
            .into_iter()
            .find(|reason| *reason as u8 == number)
    }
}

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Heard from within the timeout.
    Live,
    /// Silent for longer; a beat makes it live again.
    TimedOut,
    /// Logged out, expired or deleted, for good.
    Ended,
}

/// What can happen to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A heartbeat, or a start with the same token.
    Beat,
    /// Its deadline has passed.
    Silence,
    /// Logout, `expires_at`, or its row is gone.
    End,
}

impl State {
    /// What the session is after the event. Nothing revives an ended one.
    pub const fn on(self, event: Event) -> State {
        match (self, event) {
            (State::Ended, _) | (_, Event::End) => State::Ended,
            (State::Live | State::TimedOut, Event::Beat) => State::Live,
            (State::Live | State::TimedOut, Event::Silence) => State::TimedOut,
        }
    }

    /// What a session with these columns is at `now`, given the timeout in microseconds.
    pub const fn of(columns: &Columns, now: Micros, timeout: Micros) -> State {
        if columns.ended || now >= columns.expires_at {
            State::Ended
        } else if columns.is_active && now.saturating_sub(columns.last_activity) < timeout {
            State::Live
        } else {
            State::TimedOut
        }
    }
}

/// The columns of `user_sessions` that decide what a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    pub is_active: bool,
    /// Whether `ended_at` is set.
    pub ended: bool,
    pub last_activity: Micros,
    pub expires_at: Micros,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_and_numbers_read_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
            assert_eq!(Status::from_repr(status as u8), Some(status));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::from_repr(reason as u8), Some(reason));
        }
        assert_eq!(Status::parse("Active"), None);
        assert_eq!(Status::from_repr(4), None);
        assert_eq!(Reason::from_repr(8), None);
    }

    #[test]
    fn only_the_inactive_are_offline() {
        assert!(
            Status::ALL
                .into_iter()
                .all(|s| s.is_online() == (s != Status::Inactive))
        );
        assert_eq!(Status::of(true), Status::Active);
        assert_eq!(Status::of(false), Status::Inactive);
    }

    const LIVE: Columns = Columns {
        is_active: true,
        ended: false,
        last_activity: 0,
        expires_at: 1000,
    };

    #[test]
    fn a_session_is_live_until_the_timeout_and_not_at_it() {
        assert_eq!(State::of(&LIVE, 299, 300), State::Live);
        assert_eq!(State::of(&LIVE, 300, 300), State::TimedOut);
        assert_eq!(
            State::of(
                &Columns {
                    is_active: false,
                    ..LIVE
                },
                1,
                300
            ),
            State::TimedOut
        );
    }

    #[test]
    fn a_session_is_over_at_its_end_whatever_else() {
        assert_eq!(State::of(&LIVE, 999, i64::MAX), State::Live);
        assert_eq!(State::of(&LIVE, 1000, i64::MAX), State::Ended);
        assert_eq!(
            State::of(
                &Columns {
                    ended: true,
                    ..LIVE
                },
                1,
                300
            ),
            State::Ended
        );
    }

    proptest! {
        #[test]
        fn times_at_infinity_never_overflow(now in any::<i64>(), last in any::<i64>(), end in any::<i64>()) {
            for edge in [i64::MIN, i64::MAX, now] {
                State::of(&Columns { last_activity: edge, expires_at: end, ..LIVE }, now, 300);
                State::of(&Columns { last_activity: last, expires_at: edge, ..LIVE }, now, i64::MAX);
            }
        }

        #[test]
        fn nothing_revives_an_ended_session(events in proptest::collection::vec(0..3, 0..20)) {
            let mut state = State::Live;
            let mut over = false;
            for event in events {
                let event = [Event::Beat, Event::Silence, Event::End][event as usize];
                over |= event == Event::End;
                state = state.on(event);
                prop_assert_eq!(state == State::Ended, over);
                prop_assert!(over || (state == State::Live) == (event == Event::Beat));
            }
        }
    }
}
