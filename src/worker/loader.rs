//! Fills the roster from the table, and takes out of it what was dropped.

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    signals,
    transaction::{self, Aborted, Durability, run_transaction},
};
use crate::{
    launcher::locks,
    pg::{compat, fault_point},
    roster::{self, Tenant},
    rules::time::Micros,
    settings, store,
};

/// Users looked up at a time.
const RESUMED: usize = 1000;
/// Sessions loaded between two candidates whether the worker has to leave.
const BETWEEN_LOOKS: u32 = 10_000;

/// Loads all active sessions. True if the roster knows all of them now; false if it has no room, or the worker has to
/// leave.
///
/// The stamp that the rows are filed under is taken while the table is locked and before it is read: a commit that the
/// reading does not see is told to the roster with a later stamp.
pub fn load(tenant: Tenant, timeout: Micros) -> Result<bool, Aborted> {
    let (mut whole, mut rows) = (true, 0);
    let read = run_transaction(Some(tenant), Durability::Flushed, |_| {
        let stamp = tenant.begin_load();
        store::load::sessions(compat::now(), |row| {
            rows += 1;
            let has_to_leave = rows % BETWEEN_LOOKS == 0
                && (signals::shutdown_requested() || locks::is_database_locked(tenant.database()));
            whole = !has_to_leave && tenant.load_row(row, false, stamp, timeout).is_ok();
            fault_point::reach("load");
            whole
        });
        if whole && compat::now() < tenant.grace_until() {
            whole = load_resumed(tenant, stamp, timeout);
        }
    });
    fault_point::reach("loaded");
    let complete = tenant.end_load(read.is_ok() && whole);
    read.map(|()| complete)
}

/// Loads the sessions of those who were last told to be online though the table has them timed out: they were heard of
/// again, and the server stopped before the table was told. False if the roster has no room.
fn load_resumed(tenant: Tenant, stamp: u64, timeout: Micros) -> bool {
    let now = compat::now();
    let began = tenant.grace_until() - settings::recovery_grace();
    let mut missing: Vec<Uuid> = store::load::online_users().into_iter().collect();
    missing.retain(|user| !tenant.is_online(user, now, timeout));
    let mut whole = true;
    for users in missing.chunks(RESUMED) {
        store::load::sessions_of(users, now, began, |row| {
            whole &= tenant.load_row(row, true, stamp, timeout).is_ok();
        });
    }
    whole
}

/// Frees what installs of the extension that are gone have left in the roster of this database.
pub fn purge_dropped(database: pg_sys::Oid, current: pg_sys::Oid) {
    for tenant in roster::tenants() {
        if tenant.database() == database && tenant.relation() != current && is_gone(tenant.relation()) {
            roster::purge(tenant);
        }
    }
}

/// Whether a table is not there, and not about to be: whoever creates or drops it holds its lock, which excludes even
/// readers, until the commit.
fn is_gone(table: pg_sys::Oid) -> bool {
    transaction::run_plain(|| {
        // SAFETY: in a transaction, which releases the lock at its end.
        unsafe {
            pg_sys::ConditionalLockRelationOid(table, pg_sys::AccessShareLock as i32)
                && pg_sys::get_rel_relkind(table) == 0
        }
    })
}
