//! Bindings: sessions that are live as long as the database connection that has bound them.

use std::cell::Cell;

use pgrx::{pg_guard, pg_sys};
use uuid::Uuid;

use super::{
    heartbeat::{Answer, answer_from_pending},
    read_through::{ReadThrough, read_through},
};
use crate::{
    pg::{compat, process_local::ProcessLocal},
    roster::{self, Beat, Key, Owner},
    rules::time::Micros,
    settings,
    triggers::pending::{self, PendingWrite},
};

/// Whether what this process binds is released when it exits.
static RELEASES_AT_EXIT: ProcessLocal<Cell<bool>> = ProcessLocal::new(Cell::new(false));

/// Binds a session to this connection: it is live without heartbeats until the connection ends, and then for `grace`. Returns
/// false where the session is unknown, has ended, or the roster has no room for it. Errors: 25006 on a standby, 53200 where
/// there is no memory, 55000 where the library is not preloaded.
pub fn bind(id: Uuid, grace: Micros) -> bool {
    let tenant = roster::tenant();
    release_at_exit();
    let key = Key::Id(id);
    let pending = answer_from_pending(&key, &Owner::Any);
    if pending.is_some_and(|answer| answer != Answer::Ok) {
        return false;
    }
    // Retry once: the slot may be evicted between fill and binding.
    for attempt in 0..3 {
        match tenant.bind(&id, grace, settings::active_timeout()) {
            Beat::Counted => {
                tenant.count_beat();
                return true;
            }
            Beat::Ended => {
                tenant.count_rejected();
                return false;
            }
            // This transaction has started the session, which nobody else may see before the commit.
            Beat::Missing if pending.is_some() => {
                let has_slot = tenant.knows(&id);
                if has_slot {
                    pending::at_commit(tenant, PendingWrite::Bind(id, grace));
                }
                return has_slot;
            }
            Beat::Missing if attempt == 2 => {}
            Beat::Missing => match read_through(tenant, &key, &Owner::Any, false) {
                ReadThrough::Filled => {}
                ReadThrough::BeatWritten | ReadThrough::Ended | ReadThrough::Unknown => return false,
            },
        }
    }
    false
}

fn release_at_exit() {
    if RELEASES_AT_EXIT.get() {
        return;
    }
    let process = pg_sys::Datum::from(compat::process_number());
    // SAFETY: a callback that cannot fail. It runs after the transaction is aborted and its locks are released, and before
    // the process gives its number back.
    unsafe { pg_sys::on_shmem_exit(Some(at_exit), process) };
    RELEASES_AT_EXIT.set(true);
}

#[pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, process: pg_sys::Datum) {
    roster::end_connection(process.value());
}
