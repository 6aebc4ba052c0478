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
