//! The status of a user, and the reasons for its changes.

/// The status of a user, `presence_status` in SQL. The SQL type has two more labels, 'idle' and 'busy', which are
/// reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Inactive,
    Active,
}

impl Status {
    /// Returns the status of a user with or without a live session.
    pub const fn of(live: bool) -> Status {
        if live { Status::Active } else { Status::Inactive }
    }

    /// Returns the label in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Inactive => "inactive",
        }
    }

    /// Returns whether the user is online, as in every status but 'inactive'.
    pub const fn is_online(self) -> bool {
        !matches!(self, Status::Inactive)
    }
}

/// Why the status of a user changed, `presence_changes.reason` in SQL. Shared memory contains the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// A session started.
    Started = 0,
    /// A session that had timed out sent a heartbeat.
    Resumed = 1,
    /// A session ended, by logout.
    Ended = 2,
    /// A released session sent no heartbeat within its grace.
    Released = 3,
    /// A session sent no heartbeat within the timeout.
    TimedOut = 4,
    /// A session reached its absolute end.
    Expired = 5,
    /// The row of the session, or the user, was deleted.
    Deleted = 6,
    /// After a start of the worker, the sessions of the user were found to have no activity since before the server
    /// stopped.
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

    /// Returns the text in SQL.
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

    /// Returns the reason with this number.
    pub fn from_repr(number: u8) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| *reason as u8 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_inactive_are_offline() {
        assert!(Status::of(true).is_online());
        assert!(!Status::of(false).is_online());
    }

    #[test]
    fn reasons_read_back_from_shared_memory() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_repr(reason as u8), Some(reason));
        }
        assert_eq!(Reason::from_repr(8), None);
    }

    #[test]
    fn every_reason_has_a_text_of_its_own() {
        let texts: std::collections::HashSet<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(texts.len(), Reason::ALL.len());
    }
}
