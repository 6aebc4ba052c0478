//! A release, whole: a session times out early unless it beats again.

use super::{
    heartbeat::{Answer, own_write},
    read_through::{ReadThrough, read_through},
};
use crate::{
    pg::compat,
    roster::{self, Beat, Key, Owner},
    rules::time::Micros,
    settings,
};

/// Makes a session time out after `grace`, unless it beats first. Returns whether it exists and has not ended. Where the
/// roster has no room for the session there is nothing to shorten: it times out like any other.
pub fn release(key: Key, owner: Owner, grace: Micros) -> bool {
    let tenant = roster::tenant();
    let own = own_write(&key, &owner);
    if own.is_some_and(|answer| answer != Answer::Ok) {
        return false;
    }
    // Retry once: the slot may be evicted between fill and release.
    for _ in 0..2 {
        let timeout = settings::active_timeout();
        match tenant.release(&key, &owner, grace, compat::now(), timeout) {
            Beat::Counted => return true,
            Beat::Ended => return false,
            // The row is this transaction's own: nobody is to see it before the commit.
            Beat::Missing if own.is_some() => return true,
            Beat::Missing => match read_through(tenant, &key, &owner) {
                ReadThrough::Filled => {}
                ReadThrough::Beaten => return true,
                ReadThrough::Ended | ReadThrough::Unknown => return false,
            },
        }
    }
    false
}
