//! A heartbeat, whole.

use uuid::Uuid;

use super::read_through::{ReadThrough, read_through};
use crate::{
    pg::compat,
    roster::{self, Beat, Key, Owner, Tenant},
    settings,
    triggers::pending,
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

/// Prefetches what a heartbeat of this session is about to need, while the caller's rights are checked.
#[inline]
pub fn prefetch_heartbeat(id: &Uuid) {
    if let Some(tenant) = roster::known_tenant() {
        tenant.prefetch_bucket(id);
        tenant.prefetch_lock(id);
    }
}

/// Prefetches the session itself, once what [`prefetch_heartbeat`] requested has arrived.
#[inline]
pub fn prefetch_slot(id: &Uuid) {
    if let Some(tenant) = roster::known_tenant() {
        tenant.prefetch_slot(id);
    }
}

/// Counts a heartbeat. Errors: 25006 on a standby, 55000 where the library is not preloaded.
///
/// Always inlined, with what it calls: a backend has slept before a beat, and each page of code is a cache miss.
#[inline(always)]
pub fn heartbeat(key: Key, owner: Owner) -> Answer {
    let tenant = roster::tenant();
    if let Key::Id(id) = &key {
        // It arrives while the clock is read and the lock taken.
        tenant.prefetch_slot(id);
    }
    match tenant.beat(&key, &owner, compat::now(), settings::active_timeout) {
        Beat::Counted if pending::is_empty() => Answer::Ok,
        Beat::Ended if pending::is_empty() => Answer::Ended,
        _ => slow_heartbeat(tenant, &key, &owner),
    }
}

/// Counts heartbeats; returns the ids that were not counted, in the order of the call.
pub fn heartbeat_many(ids: &[Uuid], owner: Owner) -> Vec<Uuid> {
    let tenant = roster::tenant();
    let now = compat::now();
    let mut missed = Vec::new();
    for (i, id) in ids.iter().enumerate() {
        tenant.prefetch_batch(ids, i);
        let key = Key::Id(*id);
        let counted = match tenant.beat(&key, &owner, now, settings::active_timeout) {
            Beat::Counted if pending::is_empty() => true,
            _ => slow_heartbeat(tenant, &key, &owner) == Answer::Ok,
        };
        if !counted {
            missed.push(*id);
        }
    }
    missed
}

/// The answer that follows from what this transaction itself wrote of the session, if it did.
pub(super) fn own_write(key: &Key, owner: &Owner) -> Option<Answer> {
    let write = match key {
        Key::Id(id) => pending::last_write(|image| image.id == *id),
        Key::Digest(digest) => pending::last_write(|image| image.digest == *digest),
    }?;
    let has_ended = write.image.ended || write.image.expires_at <= compat::now();
    Some(
        match (owner.may(&write.image.auth_id), write.effect.deleted, has_ended) {
            (false, _, _) | (_, true, _) => Answer::Unknown,
            (_, _, true) => Answer::Ended,
            _ => Answer::Ok,
        },
    )
}

#[cold]
fn slow_heartbeat(tenant: Tenant, key: &Key, owner: &Owner) -> Answer {
    if let Some(answer) = own_write(key, owner) {
        return answer;
    }
    // Retry once: the slot may be evicted between fill and beat.
    for _ in 0..2 {
        match tenant.beat(key, owner, compat::now(), settings::active_timeout) {
            Beat::Counted => return Answer::Ok,
            Beat::Ended => return Answer::Ended,
            Beat::Missing => match read_through(tenant, key, owner) {
                ReadThrough::Filled => {}
                ReadThrough::Beaten => return Answer::Ok,
                ReadThrough::Ended => return Answer::Ended,
                ReadThrough::Unknown => return Answer::Unknown,
            },
        }
    }
    Answer::Unknown
}
