//! The status of a user, when a session is idle, and the reasons for changes of status.

use super::time::{Micros, SteadyTime};

/// The status of a user, `presence_status` in SQL. Sessions make a user active, idle or inactive; what is declared may
/// make one who is online busy or idle, see [`declared`](super::declared).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Inactive,
    /// Every live session is idle, or the user is away by declaration.
    Idle,
    /// By declaration only.
    Busy,
    Active,
}

impl Status {
    /// Every status.
    pub(super) const ALL: [Status; 4] = [Status::Inactive, Status::Idle, Status::Busy, Status::Active];

    /// Returns the status of a user with this many live sessions, of which this many are idle. One that is not idle is
    /// enough, so that a second device does not make the status flicker.
    #[inline]
    pub const fn of(live: u32, idle: u32) -> Status {
        match (live, idle) {
            (0, _) => Status::Inactive,
            (live, idle) if idle < live => Status::Active,
            _ => Status::Idle,
        }
    }

    /// Returns the status with this label in SQL.
    pub fn from_label(label: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == label)
    }

    /// Returns the label in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Idle => "idle",
            Status::Busy => "busy",
            Status::Inactive => "inactive",
        }
    }

    /// Returns whether the user is online, as in every status but 'inactive'.
    pub const fn is_online(self) -> bool {
        !matches!(self, Status::Inactive)
    }
}

/// Returns the instant from which a session is idle whose last heartbeat said that nobody is at it. `active_at` is its last
/// activity before that said otherwise; without a `timeout` it is never idle.
#[inline]
pub const fn idle_from(active_at: SteadyTime, timeout: Option<Micros>) -> SteadyTime {
    match timeout {
        Some(timeout) => active_at.plus(timeout),
        None => SteadyTime::FUTURE,
    }
}

/// Defines [`Reason`] from one list, so that no reason can be left out of `Reason::ALL`.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal => $text:literal,)*) => {
        /// Why the status of a user changed, `presence_changes.reason` in SQL. Shared memory contains the numbers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $name = $number,)*
        }

        impl Reason {
            /// Every reason.
            #[cfg(test)]
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            /// Returns the text in SQL.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)*
                }
            }

            /// Returns the reason with this number.
            pub const fn from_repr(number: u8) -> Option<Reason> {
                match number {
                    $($number => Some(Reason::$name),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// A session started.
    Started = 0 => "started",
    /// A session that had timed out sent a heartbeat.
    Resumed = 1 => "resumed",
    /// A session ended, by logout.
    Ended = 2 => "ended",
    /// A released session sent no heartbeat within its grace.
    Released = 3 => "released",
    /// A session sent no heartbeat within the timeout.
    TimedOut = 4 => "timed_out",
    /// A session reached its absolute end.
    Expired = 5 => "expired",
    /// The row of the session, or the user, was deleted.
    Deleted = 6 => "deleted",
    /// After a start of the worker, the sessions of the user were found to have no activity since before the server
    /// stopped.
    Recovered = 7 => "recovered",
    /// The last session that was not idle became so, or is no longer live.
    Idle = 8 => "idle",
    /// After all live sessions were idle, somebody is at one.
    Returned = 9 => "returned",
    /// What is declared of the user began, changed or ended.
    Declared = 10 => "declared",
}

impl Reason {
    /// Returns the reason of a change from one status to another, which a session's change of this reason has made. Between
    /// two statuses that are online, the statuses tell.
    pub const fn of_change(self, before: Status, after: Status) -> Reason {
        match (before, after) {
            (Status::Active, Status::Idle) => Reason::Idle,
            (Status::Idle, Status::Active) => Reason::Returned,
            _ => self,
        }
    }

    /// Returns whether a user may have this status for this reason.
    pub const fn leads_to(self, status: Status) -> bool {
        match self {
            Reason::Started | Reason::Resumed | Reason::Idle | Reason::Returned => status.is_online(),
            Reason::Ended | Reason::Released | Reason::TimedOut | Reason::Expired | Reason::Deleted => {
                !status.is_online()
            }
            Reason::Recovered | Reason::Declared => true,
        }
    }

    /// Returns whether a user with this reason neither comes nor goes.
    pub const fn is_while_online(self) -> bool {
        matches!(self, Reason::Idle | Reason::Returned | Reason::Declared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_inactive_are_offline() {
        assert_eq!(Status::ALL.map(Status::is_online), [false, true, true, true]);
    }

    #[test]
    fn every_status_reads_back_from_its_label() {
        for status in Status::ALL {
            assert_eq!(Status::from_label(status.as_str()), Some(status));
        }
        assert_eq!(Status::from_label("away"), None);
    }

    #[test]
    fn one_session_that_is_not_idle_makes_a_user_active() {
        use Status::{Active, Idle, Inactive};
        // By the number of live sessions, and of idle ones among them.
        let table = [
            ((0, 0), Inactive),
            ((1, 0), Active),
            ((1, 1), Idle),
            ((2, 0), Active),
            ((2, 1), Active),
            ((2, 2), Idle),
        ];
        for ((live, idle), status) in table {
            assert_eq!(Status::of(live, idle), status, "{idle} of {live} idle");
        }
    }

    #[test]
    fn a_reason_leads_to_coming_or_to_going() {
        for &reason in Reason::ALL {
            let [inactive, idle, busy, active] = Status::ALL.map(|status| reason.leads_to(status));
            assert!(idle == active && busy == active && (inactive || active), "{reason:?}");
            assert!(active || !reason.is_while_online(), "{reason:?}");
        }
        for (reason, status) in [(Reason::Ended, Status::Active), (Reason::Started, Status::Inactive)] {
            assert!(!reason.leads_to(status), "{reason:?}");
        }
    }

    #[test]
    fn changes_while_online_have_the_reason_that_the_statuses_tell() {
        for &reason in Reason::ALL {
            for (before, after) in Status::ALL.iter().flat_map(|&a| Status::ALL.map(|b| (a, b))) {
                let expected = match (before, after) {
                    (Status::Active, Status::Idle) => Reason::Idle,
                    (Status::Idle, Status::Active) => Reason::Returned,
                    _ => reason,
                };
                assert_eq!(reason.of_change(before, after), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn a_user_is_what_its_sessions_are(sessions in prop::collection::vec((any::<bool>(), any::<bool>()), 0..8)) {
            let live = sessions.iter().filter(|(live, _)| *live);
            let (count, idle) = (live.clone().count(), live.filter(|(_, idle)| *idle).count());
            let status = Status::of(count as u32, idle as u32);
            prop_assert_eq!(status.is_online(), count > 0);
            prop_assert_eq!(status == Status::Active, sessions.iter().any(|(live, idle)| *live && !idle));
        }

        #[test]
        fn a_session_is_idle_once_the_timeout_has_passed(at in -1_i64 << 60..1 << 60, timeout in 0..1_i64 << 60) {
            let active_at = SteadyTime::from_micros(at);
            prop_assert_eq!(idle_from(active_at, Some(timeout)).since(active_at), timeout);
            prop_assert_eq!(idle_from(active_at, None), SteadyTime::FUTURE);
        }
    }

    #[test]
    fn reasons_read_back_from_shared_memory() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_repr(reason as u8), Some(reason));
        }
        assert_eq!(Reason::from_repr(Reason::ALL.len() as u8), None);
    }

    #[test]
    fn every_reason_has_a_text_of_its_own() {
        let texts: std::collections::HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(texts.len(), Reason::ALL.len());
    }
}
