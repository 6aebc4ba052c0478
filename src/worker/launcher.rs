//! The launcher: sees that each database that has the extension has a worker.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::{
    bgworkers::{BackgroundWorker, SignalWakeFlags},
    pg_sys,
    prelude::*,
};

use super::{board::Board, database::Database};
use crate::roster;

/// How often pg_database is read without being asked to.
const RESCAN: Duration = Duration::from_secs(5);
/// Workers started at one time that have not said yet whether they serve, so that trying many databases leaves slots
/// to others.
const TRIALS: usize = 3;

/// The launcher's process.
///
/// It ends with exit code 1 whenever it is asked to, because 0 would keep the postmaster from starting it again after
/// pg_terminate_backend; when the server stops it is not started again anyway.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_presence_launcher(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi(None, None);
    let Some(board) = Board::attached() else {
        return;
    };
    // SAFETY: registers a callback that only writes to shared memory and cannot fail.
    unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0)) };
    board.launcher_arrives();

    let mut launcher = Launcher::new(board);
    while BackgroundWorker::wait_latch(Some(launcher.look())) {
        if BackgroundWorker::sighup_received() {
            // SAFETY: outside a transaction, as the server's own processes do it.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
    }
    // SAFETY: ends this process.
    unsafe { pg_sys::proc_exit(1) };
}

#[pg_guard]
extern "C-unwind" fn leave(_code: i32, _argument: pg_sys::Datum) {
    if let Some(board) = Board::attached() {
        board.launcher_leaves();
    }
}

struct Launcher {
    board: &'static Board,
    databases: HashMap<u32, Database>,
    rescan: Instant,
}

impl Launcher {
    /// Knows nothing but the workers that an earlier launcher started.
    fn new(board: &'static Board) -> Launcher {
        let given_out = board
            .desks
            .iter()
            .enumerate()
            .filter(|(_, desk)| desk.database() != 0);
        let databases = given_out
            .map(|(number, desk)| (desk.database(), Database::adopt(desk.database(), number)))
            .collect();
        Launcher {
            board,
            databases,
            rescan: Instant::now(),
        }
    }

    /// Does what is due; gives how long there is nothing to do.
    fn look(&mut self) -> Duration {
        let now = Instant::now();
        let (wanted, all) = self.board.take_wanted();
        let mut slot_freed = false;
        for (oid, database) in &mut self.databases {
            slot_freed |= database.watch(self.board, now);
            if all || wanted.contains(oid) {
                database.poke();
            }
        }
        let unheard_of = wanted.iter().any(|oid| !self.databases.contains_key(oid));
        let starts = |database: &mut Database| database.wants_worker(now, slot_freed);
        // Before a start it is read again: the database may have been dropped since.
        if now >= self.rescan || all || unheard_of || self.databases.values_mut().any(starts) {
            self.read_databases();
            self.rescan = now + RESCAN;
        }
        self.databases
            .retain(|_, database| database.open || database.has_worker());
        self.start_workers(now, slot_freed);
        let due = self
            .databases
            .values()
            .filter_map(|database| database.next_look(now));
        let next = due.fold(self.rescan, Instant::min);
        // A little above the exact time, so as not to wake just before it.
        next.saturating_duration_since(now) + Duration::from_millis(1)
    }

    fn start_workers(&mut self, now: Instant, slot_freed: bool) {
        let on_trial = self
            .databases
            .values()
            .filter(|database| database.is_on_trial())
            .count();
        for database in self
            .databases
            .values_mut()
            .filter_map(|database| database.wants_worker(now, slot_freed).then_some(database))
            .take(TRIALS.saturating_sub(on_trial))
        {
            database.start(self.board, now);
        }
    }

    fn read_databases(&mut self) {
        // Before the databases are read, as a new one may be used at once.
        let spaces = roster::spaces();
        let found = BackgroundWorker::transaction(databases);
        for (oid, database) in &mut self.databases {
            database.open = found.get(oid).copied().unwrap_or(false);
        }
        for (&oid, _) in found.iter().filter(|&(_, &open)| open) {
            self.databases
                .entry(oid)
                .or_insert_with(|| Database::new(oid));
        }
        for space in spaces {
            if !found.contains_key(&space.database().to_u32()) {
                roster::purge(space);
            }
        }
    }
}

/// All databases, and whether they may have a worker: no template, open to connections, and not left half removed by
/// a DROP.
fn databases() -> HashMap<u32, bool> {
    const INVALID: i32 = -2;
    let mut found = HashMap::new();
    // SAFETY: a scan of a shared catalog under its own lock, in a transaction; each row is read before the next is
    // fetched.
    unsafe {
        let catalog =
            pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(catalog, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            let open = row.datallowconn && !row.datistemplate && row.datconnlimit != INVALID;
            found.insert(row.oid.to_u32(), open);
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
    }
    found
}
