//! Users who are hidden: to others, all of their sessions have ended, and start when they show again.

use super::{status::Status, time::Micros};

/// The source of declarations that hides its user.
pub const VISIBILITY: &str = "visibility";
/// What the row of that source has as its word.
pub const INVISIBLE: &str = "invisible";

/// A row of that source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hiding {
    /// When it ends by itself.
    pub expires_at: Option<Micros>,
    /// When it was ended before.
    pub shown_at: Option<Micros>,
    /// Whether the user itself has hidden.
    pub by_user: bool,
    /// The last activity that was shown before.
    pub last_seen: Option<Micros>,
}

impl Hiding {
    /// Returns whether it hides its user at `now`.
    pub fn hides(&self, now: Micros) -> bool {
        self.hidden_until().is_some_and(|until| until > now)
    }

    /// Returns until when it hides its user, if nothing else happens; `None` where it was ended before.
    pub fn hidden_until(&self) -> Option<Micros> {
        match self.shown_at {
            Some(_) => None,
            None => Some(self.expires_at.unwrap_or(Micros::MAX)),
        }
    }

    /// Returns what it leaves of its user's activity at `now`. What it has hidden is never seen.
    pub fn visible(&self, now: Micros) -> Visible {
        // A time in the future is of before the clock was set back.
        let before = self.last_seen.map(|at| at.min(now));
        match self.shown_at {
            Some(at) => Visible {
                since: at.min(now),
                before,
            },
            None => Visible {
                before,
                ..Visible::unless_hidden_until(self.expires_at.unwrap_or(Micros::MAX), now)
            },
        }
    }
}

/// What anybody may know of a user's activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visible {
    /// Only what is not earlier than this; `Micros::MAX`: nothing, as the user is hidden.
    pub since: Micros,
    /// And this, from before the user was hidden.
    pub before: Option<Micros>,
}

impl Visible {
    /// All of it, of a user who was never hidden.
    pub const ALL: Visible = Visible {
        since: Micros::MIN,
        before: None,
    };

    /// Of a user who is hidden.
    pub const fn nothing(before: Option<Micros>) -> Visible {
        Visible {
            since: Micros::MAX,
            before,
        }
    }

    /// Of a user who is or was hidden until then, as far as sessions tell; `Micros::MIN`: never.
    pub const fn unless_hidden_until(until: Micros, now: Micros) -> Visible {
        match until > now {
            true => Visible::nothing(None),
            false => Visible {
                since: until,
                before: None,
            },
        }
    }

    /// Returns what is visible of a user of whom this was found before its sessions were read, and `later` after that. Where
    /// it has changed, the user was hidden in between. `later` is `None` where nothing is found any more: what is over is
    /// deleted in the end.
    pub fn throughout(self, later: Option<Visible>) -> Visible {
        match later {
            None => self,
            Some(later) if self == later => self,
            Some(later) => Visible::nothing(later.before.or(self.before)),
        }
    }

    /// Returns whether the user is hidden.
    pub fn is_hidden(&self) -> bool {
        self.since == Micros::MAX
    }

    /// Returns the last activity to show of a user whose sessions have this one, and are live or not.
    pub fn last_seen(&self, is_live: bool, activity: Option<Micros>) -> Option<Micros> {
        match is_live && !self.is_hidden() {
            // Who is back was there at that moment.
            true if *self != Visible::ALL => activity.max(Some(self.since)),
            true => activity,
            false => activity.filter(|&at| at >= self.since).max(self.before),
        }
    }

    /// Returns since when to show a user as idle whose sessions are since then; `None`: it is not, as its sessions have just
    /// started to others.
    pub fn idle_since(&self, at: Micros, now: Micros, idle_timeout: Option<Micros>) -> Option<Micros> {
        match at >= self.since {
            true => Some(at),
            false => Some(self.since).filter(|&since| idle_timeout.is_some_and(|timeout| now - since >= timeout)),
        }
    }

    /// Returns the status to show of a user whom its sessions make this, idle since then.
    pub fn status(
        &self,
        by_sessions: Status,
        idle_since: Option<Micros>,
        now: Micros,
        idle_timeout: Option<Micros>,
    ) -> Status {
        match by_sessions {
            _ if self.is_hidden() => Status::Inactive,
            Status::Idle if idle_since.is_some_and(|at| self.idle_since(at, now, idle_timeout).is_none()) => {
                Status::Active
            }
            _ => by_sessions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = 1_000;

    fn hiding() -> Hiding {
        Hiding {
            expires_at: None,
            shown_at: None,
            by_user: false,
            last_seen: Some(7),
        }
    }

    #[test]
    fn it_hides_until_it_expires_or_is_ended() {
        for (expires_at, shown_at, hides) in [
            (None, None, true),
            (Some(NOW + 1), None, true),
            (Some(NOW), None, false),
            (Some(NOW + 1), Some(NOW), false),
            // Ended before the clock was set back.
            (None, Some(NOW + 9), false),
        ] {
            for by_user in [false, true] {
                let row = Hiding {
                    expires_at,
                    shown_at,
                    by_user,
                    ..hiding()
                };
                assert_eq!(row.hides(NOW), hides);
                assert_eq!(row.visible(NOW).is_hidden(), hides);
                assert_ne!(row.visible(NOW), Visible::ALL);
            }
        }
        assert_eq!(Visible::unless_hidden_until(Micros::MIN, NOW), Visible::ALL);
    }

    #[test]
    fn activity_while_hidden_never_shows() {
        let hidden = hiding().visible(NOW);
        for at in [None, Some(5), Some(NOW), Some(NOW + 5)] {
            assert_eq!(hidden.last_seen(true, at), Some(7));
            assert_eq!(hidden.last_seen(false, at), Some(7));
        }
        for is_told in [false, true] {
            let at = Some(NOW - 10);
            let row = match is_told {
                true => Hiding {
                    shown_at: at,
                    ..hiding()
                },
                false => Hiding {
                    expires_at: at,
                    ..hiding()
                },
            };
            let back = row.visible(NOW);
            // Whoever is there at that moment was active then.
            assert_eq!(back.last_seen(true, Some(NOW - 20)), Some(NOW - 10));
            assert_eq!(back.last_seen(true, None), Some(NOW - 10));
            assert_eq!(back.last_seen(true, Some(NOW - 5)), Some(NOW - 5));
            // Who is not was not seen since.
            assert_eq!(back.last_seen(false, Some(NOW - 20)), Some(7));
            assert_eq!(back.last_seen(false, Some(NOW - 5)), Some(NOW - 5));
            assert_eq!(back.last_seen(false, None), Some(7));
        }
        for at in [None, Some(5)] {
            assert_eq!(Visible::ALL.last_seen(true, at), at);
            assert_eq!(Visible::ALL.last_seen(false, at), at);
        }
    }

    #[test]
    fn who_comes_back_is_idle_as_one_whose_sessions_start_then() {
        let back = Hiding {
            shown_at: Some(NOW - 10),
            ..hiding()
        }
        .visible(NOW);
        for (timeout, is_idle) in [(Some(10), true), (Some(11), false), (None, false)] {
            let since = back.idle_since(5, NOW, timeout);
            assert_eq!(since, is_idle.then_some(NOW - 10));
            let expected = if is_idle { Status::Idle } else { Status::Active };
            assert_eq!(back.status(Status::Idle, Some(5), NOW, timeout), expected);
            assert_eq!(Visible::ALL.status(Status::Idle, Some(5), NOW, timeout), Status::Idle);
        }
        assert_eq!(back.idle_since(NOW - 3, NOW, Some(11)), Some(NOW - 3));
        let hidden = hiding().visible(NOW);
        for by_sessions in [Status::Active, Status::Idle, Status::Inactive] {
            assert_eq!(hidden.status(by_sessions, None, NOW, None), Status::Inactive);
        }
    }

    #[test]
    fn what_changes_while_sessions_are_read_was_hidden_in_between() {
        let hidden = hiding().visible(NOW);
        let back = Hiding {
            shown_at: Some(NOW - 1),
            last_seen: Some(8),
            ..hiding()
        }
        .visible(NOW);
        assert_eq!(hidden.throughout(Some(hidden)), hidden);
        assert_eq!(back.throughout(Some(back)), back);
        assert_eq!(hidden.throughout(Some(back)), Visible::nothing(Some(8)));
        assert_eq!(Visible::ALL.throughout(Some(hidden)), hidden);
        // What was over is deleted.
        assert_eq!(back.throughout(None), back);
        // A forgotten user's, with all that was hidden.
        assert_eq!(hidden.throughout(None), hidden);
    }
}
