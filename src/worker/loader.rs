//! Loads the table into the roster, and purges dropped installs from it.

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    signals,
    transaction::{self, Aborted, Durability, run_transaction},
};
use crate::{
    launcher::locks::DatabaseWatch,
    pg::fault_point,
    roster::{self, FlushScope, Tenant},
    rules::time::Micros,
    settings, store,
};

/// Users per statement.
const USERS_PER_STATEMENT: usize = 1000;
/// Sessions looked up by one statement.
const SESSIONS_PER_STATEMENT: usize = 5000;
/// Rows loaded between two checks for a reason to stop.
const ROWS_PER_CHECK: u32 = 10_000;

/// Loads all active sessions. Returns true if the roster is complete now, and false if it is full or the worker has to
/// stop.
///
/// The stamp of the rows is taken while the table is locked and before it is read, so a commit that the load's snapshot
/// does not see is applied to the roster with a later stamp.
pub fn load(tenant: Tenant, timeout: Micros) -> Result<bool, Aborted> {
    let (mut whole, mut rows) = (true, 0);
    let mut watch = DatabaseWatch::default();
    let result = run_transaction(Some(tenant), Durability::Flushed, None, |_| {
        let stamp = tenant.begin_load();
        store::load::active_sessions(tenant.now().wall(), |row| {
            rows += 1;
            let has_to_stop =
                rows % ROWS_PER_CHECK == 0 && (signals::shutdown_requested() || watch.must_leave(tenant.database()));
            whole = !has_to_stop && tenant.load_row(row, false, stamp, timeout).is_ok();
            fault_point::reach("load");
            whole
        });
        if whole && tenant.now().steady < tenant.grace_until() {
            whole = load_resumed(tenant, stamp, timeout);
        }
    });
    fault_point::reach("loaded");
    let complete = tenant.end_load(result.is_ok() && whole);
    result.map(|()| complete)
}

/// Ends the sessions in the roster that the table does not have, or has ended: where the triggers see what is written,
/// there are none. Returns false where it has to be called again.
pub fn end_missing(tenant: Tenant) -> Result<bool, Aborted> {
    let (mut cursor, mut ended_all, now) = (0, true, tenant.now());
    loop {
        let known = tenant.flush_candidates(&mut cursor, SESSIONS_PER_STATEMENT, FlushScope::Known, &now);
        let ids: Vec<Uuid> = known.iter().map(|row| row.id).collect();
        let present = run_transaction(Some(tenant), Durability::Lazy, None, |_| store::flush::not_ended(&ids))?;
        ended_all &= tenant.end_missing(known.iter().filter(|row| !present.contains(&row.id)));
        if cursor == 0 {
            return Ok(ended_all);
        }
    }
}

/// Loads the sessions of users who were last published as online although the table has their sessions timed out: they
/// resumed, and the server stopped before that was flushed. Returns false if the roster is full.
fn load_resumed(tenant: Tenant, stamp: u64, timeout: Micros) -> bool {
    let now = tenant.now();
    let grace_start = now.to_wall(tenant.grace_until().minus(settings::recovery_grace()));
    let mut missing: Vec<Uuid> = store::load::online_users().into_keys().collect();
    missing.retain(|user| !tenant.is_online(user, &now, timeout));
    let mut whole = true;
    for users in missing.chunks(USERS_PER_STATEMENT) {
        store::load::sessions_of_users(users, now.wall(), grace_start, |row| {
            whole &= tenant.load_row(row, true, stamp, timeout).is_ok();
        });
    }
    whole
}

/// Frees what dropped installs of the extension have left in the roster for this database.
pub fn purge_dropped(database: pg_sys::Oid, current: pg_sys::Oid) {
    for tenant in roster::tenants() {
        if tenant.database() == database && tenant.relation() != current && is_dropped(tenant.relation()) {
            roster::purge(tenant);
        }
    }
}

/// Whether a table does not exist, and is not being created: CREATE and DROP hold its lock, which excludes even
/// readers, until they commit.
fn is_dropped(table: pg_sys::Oid) -> bool {
    transaction::run_unlocked(|| {
        // SAFETY: in a transaction, which releases the lock at its end.
        unsafe {
            pg_sys::ConditionalLockRelationOid(table, pg_sys::AccessShareLock as i32)
                && pg_sys::get_rel_relkind(table) == 0
        }
    })
}
