//! Those who never stop beating, and what excuses a report that one of them is inactive.

use chrono::{DateTime, TimeDelta, Utc};

/// Of how long a silence the server may make something: a heartbeat interval and a flush interval, which is what it
/// waits for after a crash, too.
pub const GRACE: TimeDelta = TimeDelta::seconds(4);

/// One of them, from the first acknowledged login on.
pub struct Keeper {
    began: DateTime<Utc>,
    /// When the last acknowledged beat was sent.
    beaten: DateTime<Utc>,
    /// Silences of its own, when the machine stood still or the server was away: from the last beat that was heard for
    /// certain to the first one that was heard again.
    silences: Vec<(DateTime<Utc>, DateTime<Utc>)>,
    signed_out: Option<DateTime<Utc>>,
}

impl Keeper {
    /// Has been logged in by what was sent then.
    pub fn begin(sent: DateTime<Utc>) -> Keeper {
        Keeper {
            began: sent,
            beaten: sent,
            silences: Vec::new(),
            signed_out: None,
        }
    }

    /// A beat sent then is acknowledged now.
    pub fn has_beaten(&mut self, sent: DateTime<Utc>, now: DateTime<Utc>) {
        if now - self.beaten >= GRACE {
            self.silences.push((self.beaten, now));
        }
        self.beaten = sent;
    }

    pub fn signs_out(&mut self, now: DateTime<Utc>) {
        self.signed_out.get_or_insert(now);
    }

    /// Whether the server may have `told` that this one, last `seen` then, is inactive: it was silent for too long in
    /// between, or had signed out.
    pub fn excuses(&self, seen: DateTime<Utc>, told: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let still_silent = (now - self.beaten >= GRACE).then_some((self.beaten, now));
        self.signed_out.is_some_and(|out| out <= told)
            || self
                .silences
                .iter()
                .chain(&still_silent)
                .any(|&(from, until)| seen <= until && told >= from)
    }

    /// How long it has been at it, and how much of that was silence.
    pub fn watched(&self) -> (TimeDelta, TimeDelta) {
        let silent = self.silences.iter().map(|(from, until)| *until - *from);
        (self.beaten - self.began, silent.sum())
    }
}
