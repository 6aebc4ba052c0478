//! Heartbeats: in the roster, or by way of the table for a session that the roster does not know.

use pgrx::check_for_interrupts;
use uuid::Uuid;

use super::read_through::{ReadThrough, read_through};
use crate::{
    pg::{compat, memory},
    roster::{self, Beat, Key, Owner, Tenant},
    settings,
    triggers::pending,
};

/// What a heartbeat returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It counts.
    Ok,
    /// The session is the caller's and has ended: sign in again.
    Ended,
    /// There is no such session, or it is not the caller's: start one.
    Unknown,
}

/// Prefetches the hash bucket and the lock that a heartbeat of this session needs. Call it before the caller's rights
/// are checked.
#[inline]
pub fn prefetch_heartbeat(id: &Uuid) {
    if let Some(tenant) = roster::known_tenant() {
        tenant.prefetch_bucket(id);
        tenant.prefetch_lock(id);
    }
}

/// Prefetches the session's slot. Call it once the bucket that [`prefetch_heartbeat`] requested has arrived.
#[inline]
pub fn prefetch_slot(id: &Uuid) {
    if let Some(tenant) = roster::known_tenant() {
        tenant.prefetch_slot(id);
    }
}

/// Counts a heartbeat. Errors: 25006 on a standby, 55000 where the library is not preloaded.
///
/// Always inlined, with what it calls: after a context switch each page of code is a cache miss.
#[inline(always)]
pub fn heartbeat(key: Key, owner: Owner) -> Answer {
    let tenant = roster::tenant();
    if let Key::Id(id) = &key {
        // Arrives while the clock is read and the lock is taken.
        tenant.prefetch_slot(id);
    }
    match tenant.beat(&key, &owner, &tenant.now(), settings::active_timeout) {
        Beat::Counted if pending::is_empty() => Answer::Ok,
        Beat::Ended if pending::is_empty() => Answer::Ended,
        beat => heartbeat_slow_path(tenant, &key, &owner, Attention::Attended, beat),
    }
}

/// Counts a heartbeat of a client that nobody is at: the session stays live, and becomes idle. A session that the roster
/// has no room for stays active. Errors as [`heartbeat`].
pub fn heartbeat_idle(key: Key, owner: Owner) -> Answer {
    let tenant = roster::tenant();
    match Attention::Unattended.beat(tenant, &key, &owner) {
        Beat::Counted if pending::is_empty() => Answer::Ok,
        Beat::Ended if pending::is_empty() => Answer::Ended,
        beat => heartbeat_slow_path(tenant, &key, &owner, Attention::Unattended, beat),
    }
}

/// Whether somebody is at a client that sends a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attention {
    Attended,
    Unattended,
}

impl Attention {
    fn beat(self, tenant: Tenant, key: &Key, owner: &Owner) -> Beat {
        match self {
            Attention::Attended => tenant.beat(key, owner, &tenant.now(), settings::active_timeout),
            Attention::Unattended => tenant.beat_idle(key, owner, &tenant.now(), settings::active_timeout()),
        }
    }
}

/// Counts heartbeats. Adds the ids of those that do not count to `missed`, in the order of `ids`. Errors as
/// [`heartbeat`], and 53200 where there is no memory.
pub fn heartbeat_many(ids: &[Uuid], owner: Owner, missed: &mut Vec<Uuid>) {
    let tenant = roster::tenant();
    let now = tenant.now();
    for (i, id) in ids.iter().enumerate() {
        tenant.prefetch_batch(ids, i);
        let key = Key::Id(*id);
        let counted = match tenant.beat(&key, &owner, &now, settings::active_timeout) {
            Beat::Counted if pending::is_empty() => true,
            Beat::Ended if pending::is_empty() => false,
            beat => {
                check_for_interrupts!();
                heartbeat_slow_path(tenant, &key, &owner, Attention::Attended, beat) == Answer::Ok
            }
        };
        if !counted {
            memory::push(missed, *id);
        }
    }
}

/// Returns the answer that follows from this transaction's own last write of the session, if it has written it.
pub(super) fn answer_from_pending(key: &Key, owner: &Owner) -> Option<Answer> {
    let last = pending::last_write(key)?;
    let has_ended = last.image.ended || last.image.expires_at <= compat::now();
    Some(match (owner.may(&last.image.auth_id), last.effect.deleted, has_ended) {
        (false, _, _) | (_, true, _) => Answer::Unknown,
        (_, _, true) => Answer::Ended,
        _ => Answer::Ok,
    })
}

/// Answers a heartbeat on which `beat` is the roster's word. What this transaction has written of the session decides the
/// answer, but the beat has counted all the same.
#[cold]
fn heartbeat_slow_path(tenant: Tenant, key: &Key, owner: &Owner, attention: Attention, mut beat: Beat) -> Answer {
    if let Some(answer) = answer_from_pending(key, owner) {
        return answer;
    }
    // Retry once: the slot may be evicted between fill and beat.
    for attempt in 0..3 {
        match beat {
            Beat::Counted => return Answer::Ok,
            Beat::Ended => return Answer::Ended,
            Beat::Missing if attempt == 2 => {}
            Beat::Missing => match read_through(tenant, key, owner, attention == Attention::Attended) {
                ReadThrough::Filled => beat = attention.beat(tenant, key, owner),
                ReadThrough::BeatWritten => return Answer::Ok,
                ReadThrough::Ended => return Answer::Ended,
                ReadThrough::Unknown => return Answer::Unknown,
            },
        }
    }
    Answer::Unknown
}
