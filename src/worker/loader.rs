//! Loads the table into the roster, and purges dropped installs from it.

use std::collections::HashMap;

use pgrx::{
    PgLogLevel, PgSqlErrorCode,
    pg_sys::{self, panic::ErrorReport},
};
use uuid::Uuid;

use super::{
    signals,
    transaction::{self, Aborted, Durability, run_transaction},
};
use crate::{
    launcher::locks::DatabaseWatch,
    pg::fault_point,
    roster::{self, FlushScope, RowImage, Tenant},
    rules::time::Micros,
    store::{
        self,
        capture_state::{self, CaptureState},
    },
};

/// Users per statement.
const USERS_PER_STATEMENT: usize = 1000;
/// Tombstones freed at once.
pub const TOMBSTONES_PER_ROUND: usize = 10_000;
/// Sessions looked up by one statement.
const SESSIONS_PER_STATEMENT: usize = 5000;
/// Rows loaded between two checks for a reason to stop.
const ROWS_PER_CHECK: u32 = 10_000;

/// What has to be known to load the table.
#[derive(Default)]
pub struct Loader {
    /// The version of triggers and columns for which the table is still to be loaded.
    unfollowed: Option<u64>,
    /// Whether every write was seen when that was last read; `None` until then.
    is_capturing: Option<bool>,
    /// A refresh of the known sessions that has begun.
    refresh: Option<Refresh>,
    /// Whether a load has come to its end.
    has_read_table: bool,
}

/// How a step of loading has ended.
pub enum Loaded {
    /// The roster is complete.
    Complete,
    /// The roster is full, cannot be complete, or the worker has to stop.
    Incomplete,
    /// The next step is to follow.
    Continues,
}

/// How far the known sessions have been made what they are in the table.
#[derive(Default)]
struct Refresh {
    /// Where the next step begins. A step that fails is taken again.
    cursor: u32,
    /// Whether there was no room for one of them.
    is_full: bool,
}

impl Loader {
    /// After a trigger was disabled or enabled, or a column was rewritten, the table may have what nobody has told the
    /// roster of. Returns whether it is to be loaded.
    pub fn follow(&mut self, tenant: Tenant, capture: CaptureState) -> bool {
        let followed = &tenant.worker().capture_version;
        if followed.get() == 0 {
            followed.set(capture.version);
        }
        let is_new = self.unfollowed.unwrap_or(followed.get()) != capture.version;
        let resumes = capture.is_enabled && self.is_capturing != Some(true);
        if !capture.is_enabled && self.is_capturing != Some(false) {
            warn_not_capturing();
        }
        self.is_capturing = Some(capture.is_enabled);
        if is_new {
            // Not followed before the load, so that the next worker goes on with it.
            self.unfollowed = Some(capture.version);
            // It may have read what was written past the triggers after that.
            self.refresh = None;
        }
        if tenant.is_complete() && (is_new || !capture.is_enabled) {
            tenant.set_incomplete();
        }
        is_new || resumes && !tenant.is_complete()
    }

    /// Takes a step to load all active sessions. Where a trigger may not have told, steps of a refresh come first, which
    /// make those that the roster knows what they are in the table, and forget what has ended: the load skips sessions that
    /// the roster knows.
    pub fn load(&mut self, tenant: Tenant, timeout: Micros) -> Result<Loaded, Aborted> {
        if self.unfollowed.is_some() || self.is_capturing != Some(true) {
            let refresh = self.refresh.get_or_insert_default();
            if refresh.step(tenant, timeout)? {
                return Ok(Loaded::Continues);
            }
            if self.refresh.take().is_some_and(|refresh| refresh.is_full) {
                return Ok(Loaded::Incomplete);
            }
            while tenant.free_tombstones(TOMBSTONES_PER_ROUND) > 0 {}
        }
        self.refresh = None;
        let is_complete = self.read_table(tenant, timeout)?;
        if is_complete && let Some(version) = self.unfollowed.take() {
            tenant.worker().capture_version.set(version);
        }
        Ok(match is_complete {
            true => Loaded::Complete,
            false => Loaded::Incomplete,
        })
    }

    /// Loads all active sessions. Returns whether the roster is complete now, which it can be only if it is told of every
    /// write from now on: that is read while the table is locked, as nobody can disable a trigger meanwhile.
    ///
    /// The stamp of the rows is taken while the table is locked and before it is read, so a commit that the load's snapshot
    /// does not see is applied to the roster with a later stamp.
    fn read_table(&mut self, tenant: Tenant, timeout: Micros) -> Result<bool, Aborted> {
        let (mut whole, mut is_capturing, mut rows) = (true, false, 0);
        let mut watch = DatabaseWatch::default();
        let result = run_transaction(Some(tenant), Durability::Flushed, None, |install| {
            fault_point::fail("load");
            is_capturing = capture_state::read(&install).is_enabled;
            let stamp = tenant.begin_load();
            // They have not been heard from since they were written so, or the roster knows their sessions.
            let idle = store::load::idle_users(None);
            store::load::active_sessions(tenant.now().wall(), |row| {
                rows += 1;
                let has_to_stop = rows % ROWS_PER_CHECK == 0
                    && (signals::shutdown_requested() || watch.must_leave(tenant.database()));
                whole = !has_to_stop && tenant.load_row(&with_idle(row, &idle), false, stamp, timeout).is_ok();
                fault_point::reach("load");
                whole
            });
            if whole && let Some(began) = tenant.grace_began(&tenant.now()) {
                whole = load_resumed(tenant, &idle, began, stamp, timeout);
            }
        });
        fault_point::reach("loaded");
        whole &= result.is_ok();
        self.has_read_table |= whole;
        let complete = tenant.end_load(whole && is_capturing);
        result.map(|()| complete)
    }

    /// Whether every session in the table has been loaded for which there was room.
    pub fn has_read_table(&self) -> bool {
        self.has_read_table
    }
}

impl Refresh {
    /// Makes some of the sessions that the roster knows what they are in the table: where the triggers see what is written,
    /// they are. Returns whether there are more.
    fn step(&mut self, tenant: Tenant, timeout: Micros) -> Result<bool, Aborted> {
        let (mut cursor, now) = (self.cursor, tenant.now());
        let known = tenant.flush_candidates(&mut cursor, SESSIONS_PER_STATEMENT, FlushScope::Known, &now);
        let ids: Vec<Uuid> = known.iter().map(|row| row.id).collect();
        let rows = run_transaction(Some(tenant), Durability::Lazy, None, |_| store::load::sessions(&ids))?;
        self.is_full |= !tenant.refresh(known.iter().map(|session| (session, rows.get(&session.id))), timeout);
        self.cursor = cursor;
        Ok(cursor != 0)
    }
}

/// Logs why the roster is not complete and will not be: a restore with `--disable-triggers`, for one, leaves them so.
fn warn_not_capturing() {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        "triggers on user_sessions are not enabled for all writes",
        pgrx::function_name!(),
    )
    .set_detail("Statuses stay correct, but calls read user_sessions rather than shared memory.")
    .set_hint("presence_health() returns the statement that enables them.")
    .report(PgLogLevel::WARNING);
}

/// Loads the sessions of users who were last published as online although the table has their sessions timed out: they
/// resumed, and the server stopped before that was flushed. Returns false if the roster is full.
fn load_resumed(
    tenant: Tenant,
    idle: &HashMap<Uuid, Micros>,
    grace_began: Micros,
    stamp: u64,
    timeout: Micros,
) -> bool {
    let now = tenant.now();
    let mut missing: Vec<Uuid> = store::load::online_users();
    missing.retain(|user| !tenant.has_live(user, &now, timeout));
    let mut whole = true;
    for users in missing.chunks(USERS_PER_STATEMENT) {
        store::load::sessions_of_users(users, now.wall(), grace_began, |row| {
            whole &= tenant.load_row(&with_idle(row, idle), true, stamp, timeout).is_ok();
        });
    }
    whole
}

/// Returns a row of a session with since when its user is idle, if it is: a user who was idle when the server stopped stays
/// so until heard of.
fn with_idle(row: &RowImage, idle: &HashMap<Uuid, Micros>) -> RowImage {
    RowImage {
        idle_since: idle.get(&row.user_id).copied(),
        ..*row
    }
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
