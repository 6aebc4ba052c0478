//! Releases: a session times out early unless it beats again.

use super::{
    heartbeat::{Answer, answer_from_pending},
    read_through::{ReadThrough, read_through},
};
use crate::{
    roster::{self, Beat, Key, Owner},
    rules::time::Micros,
    settings,
};

/// Makes a session time out after `grace`, unless it beats first. Returns whether the session exists, has not ended and
/// is the owner's. A session that the roster has no room for times out as usual. Errors: 25006 on a standby, 55000
/// where the library is not preloaded.
pub fn release(key: Key, owner: Owner, grace: Micros) -> bool {
    let tenant = roster::tenant();
    let pending = answer_from_pending(&key, &owner);
    if pending.is_some_and(|answer| answer != Answer::Ok) {
        return false;
    }
    // Retry once: the slot may be evicted between fill and release.
    for _ in 0..2 {
        let timeout = settings::active_timeout();
        match tenant.release(&key, &owner, grace, &tenant.now(), timeout) {
            Beat::Counted => return true,
            Beat::Ended => return false,
            // This transaction has written the row, which nobody else may see before the commit.
            Beat::Missing if pending.is_some() => return true,
            Beat::Missing => match read_through(tenant, &key, &owner, false) {
                ReadThrough::Filled => {}
                ReadThrough::BeatWritten => return true,
                ReadThrough::Ended | ReadThrough::Unknown => return false,
            },
        }
    }
    false
}
