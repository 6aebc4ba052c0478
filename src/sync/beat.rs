//! Heartbeats and releases, whole: the roster first; where it does not know the session, the table.

use uuid::Uuid;

use super::pending;
use crate::{
    compat,
    core::time::Micros,
    errors, roster,
    roster::{Beat, Key, Owner, Space},
    settings,
    store::session,
};

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Counted.
    Ok,
    /// The caller's, and ended: sign in again.
    Ended,
    /// No such session, or not the caller's: start one.
    Unknown,
}

/// Has memory fetched that a heartbeat of this session is about to need, while it is found out who is calling.
#[inline]
pub fn expect_heartbeat(id: &Uuid) {
    if let Some(space) = roster::known_space() {
        space.ask_for_bucket(id);
        space.ask_for_lock(id);
    }
}

/// Has the session itself fetched, once what [`expect_heartbeat`] asked for has come.
#[inline]
pub fn expect_slot(id: &Uuid) {
    if let Some(space) = roster::known_space() {
        space.ask_for_slot(id);
    }
}

/// Counts a heartbeat. Errors: 25006 on a standby, 55000 where the library is not preloaded.
///
/// Always inlined, with what it calls: a backend has slept before a beat, and each page of code costs it a wait.
#[inline(always)]
pub fn heartbeat(key: Key, owner: Owner) -> Answer {
    let space = roster::space();
    if let Key::Id(id) = &key {
        // It arrives while the clock is read and the lock taken.
        space.ask_for_slot(id);
    }
    match space.beat(&key, &owner, compat::now(), settings::active_timeout) {
        Beat::Counted if pending::is_empty() => Answer::Ok,
        Beat::Ended if pending::is_empty() => Answer::Ended,
        _ => slow_heartbeat(space, &key, &owner),
    }
}

/// Counts heartbeats; gives the ids that were not counted, in the order of the call.
pub fn heartbeat_many(ids: &[Uuid], owner: Owner) -> Vec<Uuid> {
    let space = roster::space();
    let now = compat::now();
    let mut missed = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        space.ask_ahead(ids, n);
        let key = Key::Id(*id);
        let counted = match space.beat(&key, &owner, now, settings::active_timeout) {
            Beat::Counted if pending::is_empty() => true,
            _ => slow_heartbeat(space, &key, &owner) == Answer::Ok,
        };
        if !counted {
            missed.push(*id);
        }
    }
    missed
}

/// What this transaction itself has made of the session, if it wrote it.
fn own_write(key: &Key, owner: &Owner) -> Option<Answer> {
    let write = match key {
        Key::Id(id) => pending::wrote(id),
        Key::Digest(digest) => pending::last_write(|image| image.digest == *digest),
    }?;
    Some(
        match (
            owner.may(&write.image.auth_id),
            write.what.deleted,
            write.image.ended || write.image.expires_at <= compat::now(),
        ) {
            (false, _, _) | (_, true, _) => Answer::Unknown,
            (_, _, true) => Answer::Ended,
            _ => Answer::Ok,
        },
    )
}

#[cold]
fn slow_heartbeat(space: Space, key: &Key, owner: &Owner) -> Answer {
    if let Some(answer) = own_write(key, owner) {
        return answer;
    }
    // Twice at most: what is evicted between being filled and being beaten is very unlucky to be evicted again.
    for _ in 0..2 {
        let beat = space.beat(key, owner, compat::now(), settings::active_timeout);
        match beat {
            Beat::Counted => return Answer::Ok,
            Beat::Ended => return Answer::Ended,
            Beat::Missing => match read_through(space, key, owner) {
                Through::Filled => {}
                Through::Beaten => return Answer::Ok,
                Through::Ended => return Answer::Ended,
                Through::Unknown => return Answer::Unknown,
            },
        }
    }
    Answer::Unknown
}

/// What reading the table for a missing session came to.
enum Through {
    /// The roster has it now.
    Filled,
    /// The roster has no room; the table was written instead.
    Beaten,
    Ended,
    Unknown,
}

/// Reads a session that the roster does not know.
fn read_through(space: Space, key: &Key, owner: &Owner) -> Through {
    if compat::in_recovery() {
        errors::on_standby();
    }
    space.count_slow_path();
    let Some(row) = session::find(key, owner) else {
        space.count_rejected();
        return Through::Unknown;
    };
    if session::has_ended(&row, compat::now()) {
        space.count_rejected();
        return Through::Ended;
    }
    // The slot is held first, and the row read again: an end that commits in between finds the slot and marks it.
    let Ok((pinned, stamp)) = space.pin(&row) else {
        space.set_overflow();
        return match session::beat(&row.id) {
            true => Through::Beaten,
            false => Through::Ended,
        };
    };
    let guard = PinGuard {
        space,
        pinned: Some(pinned),
    };
    let row = session::find(key, owner).filter(|row| !session::has_ended(row, compat::now()));
    guard.fill(row.as_ref(), stamp, settings::active_timeout());
    match row {
        Some(_) => Through::Filled,
        None => Through::Ended,
    }
}

/// Lets go of a pinned slot also when the second read raises.
struct PinGuard {
    space: Space,
    pinned: Option<roster::Pinned>,
}

impl PinGuard {
    fn fill(mut self, row: Option<&roster::LoadedRow>, stamp: u64, timeout: Micros) {
        if let Some(pinned) = self.pinned.take() {
            self.space.fill(pinned, row, stamp, timeout);
        }
    }
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        if let Some(pinned) = self.pinned.take() {
            self.space.release_reservation(pinned);
        }
    }
}

/// Lets a session time out after `grace`, unless it beats first. True if it is there and has not ended. Where the
/// roster has no room for the session there is nothing to shorten: it times out as any other.
pub fn release(key: Key, owner: Owner, grace: Micros) -> bool {
    let space = roster::space();
    let own = own_write(&key, &owner);
    if own.is_some_and(|answer| answer != Answer::Ok) {
        return false;
    }
    for _ in 0..2 {
        let timeout = settings::active_timeout();
        match space.release(&key, &owner, grace, compat::now(), timeout) {
            Beat::Counted => return true,
            Beat::Ended => return false,
            // The row is this transaction's own: nobody is to see it before the commit.
            Beat::Missing if own.is_some() => return true,
            Beat::Missing => match read_through(space, &key, &owner) {
                Through::Filled => {}
                Through::Beaten => return true,
                Through::Ended | Through::Unknown => return false,
            },
        }
    }
    false
}
