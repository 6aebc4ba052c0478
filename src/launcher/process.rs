//! The launcher's process.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use pgrx::{
    bgworkers::{BackgroundWorker, SignalWakeFlags},
    pg_sys,
    prelude::*,
};

use super::{database::Database, slots::slots};
use crate::{
    roster::{self, wake},
    settings,
};

/// The longest time between two reads of pg_database.
const RESCAN_INTERVAL: Duration = Duration::from_secs(5);
/// Workers that may be starting at one time, so that trying many databases leaves worker slots to others.
const MAX_STARTING: usize = 3;

/// The entry point of the launcher.
///
/// On SIGTERM it exits with code 1: after 0, the postmaster would not start it again, as it should after
/// pg_terminate_backend(). When the server stops, it is not started again anyway.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_presence_launcher(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi(None, None);
    // SAFETY: registers a callback that only writes to shared memory and cannot fail.
    unsafe { pg_sys::before_shmem_exit(Some(detach), pg_sys::Datum::from(0)) };
    roster::launcher_started();
    wake::attach_launcher();

    let mut launcher = Launcher::new();
    while BackgroundWorker::wait_latch(Some(launcher.run_once())) {
        if BackgroundWorker::sighup_received() {
            // SAFETY: outside a transaction, as the server's own processes do it.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
    }
    // SAFETY: ends this process.
    unsafe { pg_sys::proc_exit(1) };
}

#[pg_guard]
extern "C-unwind" fn detach(_code: i32, _argument: pg_sys::Datum) {
    wake::detach_launcher();
}

struct Launcher {
    databases: HashMap<u32, Database>,
    next_scan: Instant,
}

impl Launcher {
    /// Starts with the workers of an earlier launcher.
    fn new() -> Launcher {
        let assigned = slots().iter().filter(|slot| slot.database() != 0);
        Launcher {
            databases: assigned
                .map(|slot| (slot.database(), Database::adopt(slot.database(), slot)))
                .collect(),
            next_scan: Instant::now(),
        }
    }

    /// Does what is due. Returns how long to wait for the next deadline.
    fn run_once(&mut self) -> Duration {
        roster::launcher_runs();
        roster::synchronize_clock();
        let now = Instant::now();
        let requests = wake::take_requests();
        let mut slot_freed = false;
        for (oid, database) in &mut self.databases {
            slot_freed |= database.check_worker(now);
            if requests.any || requests.databases.contains(oid) {
                database.request_worker();
            }
        }
        let has_unknown = requests.databases.iter().any(|oid| !self.databases.contains_key(oid));
        let starts = |database: &mut Database| database.wants_worker(now, slot_freed);
        // pg_database is read again before a start: the database may have been dropped since.
        if now >= self.next_scan || requests.any || has_unknown || self.databases.values_mut().any(starts) {
            self.read_databases();
            self.next_scan = now + RESCAN_INTERVAL;
        }
        self.databases
            .retain(|_, database| database.open || database.has_worker());
        self.start_workers(now, slot_freed);
        let due = self.databases.values().filter_map(|database| database.next_due(now));
        // Several times per heartbeat, so that a launcher that has not run for that long was stopped.
        let heartbeat = Duration::from_micros(settings::heartbeat_interval() as u64);
        let next = due.fold(self.next_scan.min(now + heartbeat / 4), Instant::min);
        // A little above the exact time, so as not to wake just before it.
        next.saturating_duration_since(now) + Duration::from_millis(1)
    }

    fn start_workers(&mut self, now: Instant, slot_freed: bool) {
        let starting = self
            .databases
            .values()
            .filter(|database| database.is_starting())
            .count();
        for database in self
            .databases
            .values_mut()
            .filter_map(|database| database.wants_worker(now, slot_freed).then_some(database))
            .take(MAX_STARTING.saturating_sub(starting))
        {
            database.start_worker(now);
        }
    }

    fn read_databases(&mut self) {
        // Read before the databases: a new database may get a tenant at once.
        let tenants = roster::tenants();
        let found = BackgroundWorker::transaction(read_pg_database);
        for (oid, database) in &mut self.databases {
            database.open = found.get(oid).is_some_and(|found| found.open);
        }
        for (&oid, found) in found.iter().filter(|(_, found)| found.open) {
            let database = self.databases.entry(oid).or_insert_with(|| Database::new(oid));
            database.name.clone_from(&found.name);
        }
        for tenant in tenants {
            if !found.contains_key(&tenant.database().to_u32()) {
                roster::purge(tenant);
            }
        }
    }
}

/// A row of pg_database.
struct DatabaseRow {
    /// The name, for the log.
    name: String,
    /// Whether it may have a worker: it is no template, open to connections, and not left half removed by a DROP.
    open: bool,
}

/// Returns all databases, by OID.
fn read_pg_database() -> HashMap<u32, DatabaseRow> {
    /// datconnlimit of a database whose DROP was interrupted.
    const INVALID: i32 = -2;
    let mut found = HashMap::new();
    // SAFETY: a scan of a shared catalog under its own lock, in a transaction; each row is read before the next is
    // fetched, and its name ends with a NUL.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(catalog, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            let name = std::ffi::CStr::from_ptr(row.datname.data.as_ptr());
            found.insert(
                row.oid.to_u32(),
                DatabaseRow {
                    name: name.to_string_lossy().into_owned(),
                    open: row.datallowconn && !row.datistemplate && row.datconnlimit != INVALID,
                },
            );
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
    }
    found
}
