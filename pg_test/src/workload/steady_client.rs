//! Users who never stop beating, and what excuses a change that reports one of them inactive.

use chrono::{DateTime, TimeDelta, Utc};

/// The silence after which the server may report a user inactive: a heartbeat interval and a flush interval, which is
/// also its grace period after a crash.
pub const GRACE: TimeDelta = TimeDelta::seconds(4);

/// One such user, from the first acknowledged login on.
pub struct SteadyClient {
    began: DateTime<Utc>,
    /// When the last acknowledged beat was sent.
    beaten: DateTime<Utc>,
    /// The client's own silences, while the machine was stalled or the server down: from the sending of the last
    /// acknowledged beat to the acknowledgement of the next one.
    silences: Vec<(DateTime<Utc>, DateTime<Utc>)>,
    signed_out: Option<DateTime<Utc>>,
}

impl SteadyClient {
    /// Starts with a login that was sent at this time and is acknowledged.
    pub fn begin(sent: DateTime<Utc>) -> SteadyClient {
        SteadyClient {
            began: sent,
            beaten: sent,
            silences: Vec::new(),
            signed_out: None,
        }
    }

    /// Records that a beat sent at `sent` is acknowledged `now`.
    pub fn record_beat(&mut self, sent: DateTime<Utc>, now: DateTime<Utc>) {
        if now - self.beaten >= GRACE {
            self.silences.push((self.beaten, now));
        }
        self.beaten = sent;
    }

    pub fn record_sign_out(&mut self, now: DateTime<Utc>) {
        self.signed_out.get_or_insert(now);
    }

    /// Whether the server was right to report the user inactive at `changed_at` and last seen at `seen`: there was a
    /// silence in between, or the user had signed out.
    pub fn excuses(&self, seen: DateTime<Utc>, changed_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let still_silent = (now - self.beaten >= GRACE).then_some((self.beaten, now));
        self.signed_out.is_some_and(|out| out <= changed_at)
            || self
                .silences
                .iter()
                .chain(&still_silent)
                .any(|&(from, until)| seen <= until && changed_at >= from)
    }

    /// How long the user has been beating, and how much of that was silence.
    pub fn observed(&self) -> (TimeDelta, TimeDelta) {
        let silent = self.silences.iter().map(|(from, until)| *until - *from);
        (self.beaten - self.began, silent.sum())
    }
}
