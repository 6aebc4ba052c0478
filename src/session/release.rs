//! Releases: a session times out early unless it beats again.

use super::{
    heartbeat::{Answer, answer_from_pending},
    read_through::{ReadThrough, read_through},
};
use crate::{
    roster::{self, Beat, Key, Owner},
    rules::time::Micros,
    settings,
    triggers::pending::{self, PendingWrite},
};

/// Makes a session time out after `grace`, unless it beats first. Returns whether the session exists, has not ended and
/// is the owner's. A session that the roster has no room for times out as usual. Errors: 25006 on a standby, 53200
/// where there is no memory, 55000 where the library is not preloaded.
pub fn release(key: Key, owner: Owner, grace: Micros) -> bool {
    let tenant = roster::tenant();
    let pending = answer_from_pending(&key, &owner);
    if pending.is_some_and(|answer| answer != Answer::Ok) {
        return false;
    }
    // Retry once: the slot may be evicted between fill and release.
    for attempt in 0..3 {
        match tenant.release(&key, &owner, grace, settings::active_timeout()) {
            Beat::Counted => return true,
            Beat::Ended => return false,
            // This transaction has started the session, which nobody else may see before the commit.
            Beat::Missing if pending.is_some() => {
                if let Some(write) = pending::last_write(&key) {
                    pending::at_commit(tenant, PendingWrite::Release(write.image.id, grace));
                }
                return true;
            }
            Beat::Missing if attempt == 2 => {}
            Beat::Missing => match read_through(tenant, &key, &owner, false) {
                ReadThrough::Filled => {}
                ReadThrough::BeatWritten => return true,
                ReadThrough::Ended | ReadThrough::Unknown => return false,
            },
        }
    }
    false
}
