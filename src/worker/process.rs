//! The worker's process: how it begins and how it ends.

use std::ffi::CStr;

use pgrx::{
    bgworkers::{BackgroundWorker, SignalWakeFlags},
    pg_sys,
    prelude::*,
};

use super::{
    board::{Board, Desk, Report},
    lock,
    tick::Worker,
};
use crate::roster;

/// What the owner of the database, or of a role, may have set otherwise, and what our statements rely on.
const SETTINGS: &[(&CStr, &CStr)] = &[
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"session_replication_role", c"origin"),
    (c"row_security", c"on"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_deferrable", c"off"),
    // What is told has to survive a crash of this server; waiting for standbys is for those who ask for it.
    (c"synchronous_commit", c"local"),
    (c"statement_timeout", c"0"),
    // Row locks are skipped and table locks tried; what is left to wait for is short or a mistake.
    (c"lock_timeout", c"100ms"),
    (c"idle_in_transaction_session_timeout", c"0"),
    #[cfg(not(feature = "pg13"))]
    (c"idle_session_timeout", c"0"),
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    (c"transaction_timeout", c"0"),
    (c"default_tablespace", c""),
    (c"application_name", c"pg_presence"),
];

/// A worker's process. It ends with exit code 0 when it leaves by itself; the launcher decides about another one.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_presence_worker(argument: pg_sys::Datum) {
    let database = pg_sys::Oid::from(argument.value() as u32);
    let number = BackgroundWorker::get_extra().parse().ok();
    let desk = number.and_then(|number: usize| Board::attached()?.desks.get(number));
    let Some(desk) = desk.filter(|desk| desk.database() == database.to_u32()) else {
        return;
    };
    desk.sit_down();
    // SAFETY: callbacks that only write to shared memory and cannot fail. Registered before the connection, this one
    // runs after it is closed and its locks are released: who comes next finds the place free.
    unsafe { pg_sys::before_shmem_exit(Some(get_up), argument_of(desk)) };

    // While it connects, which may wait for a DROP DATABASE, SIGTERM ends the process as it does any other worker.
    // SAFETY: the first thing that touches signals and database in this process.
    unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
    }
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // A reload while there was no handler has been missed.
    reload();
    pin_settings();

    let report = if lock::be_the_only_worker(database) {
        match Worker::begin(desk, database) {
            Ok(mut worker) => {
                // SAFETY: as above. It runs before the locks are released.
                unsafe { pg_sys::before_shmem_exit(Some(detach), pg_sys::Datum::from(0)) };
                desk.say(Report::Serving);
                worker.serve()
            }
            Err(report) => report,
        }
    } else {
        Report::Taken
    };
    desk.say(report);
}

/// Reads the configuration again.
pub fn reload() {
    // SAFETY: outside a transaction, as the server's own processes do it. What is pinned stays: it outranks the file.
    unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
}

/// Whether SIGTERM has come. wait_latch tells only once.
pub fn shutdown_asked() -> bool {
    // SAFETY: a flag that a signal handler sets; read as such.
    unsafe { (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 }
}

fn pin_settings() {
    for (name, value) in SETTINGS {
        // SAFETY: C strings both; the settings exist in the versions they are listed for. The worker is a superuser.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// The desk's number, for a callback.
fn argument_of(desk: &'static Desk) -> pg_sys::Datum {
    let first = Board::attached().map_or(std::ptr::null(), |board| board.desks.as_ptr());
    // SAFETY: the desk is one of the board's.
    pg_sys::Datum::from(unsafe { std::ptr::from_ref(desk).offset_from(first) } as usize)
}

#[pg_guard]
extern "C-unwind" fn get_up(_code: i32, desk: pg_sys::Datum) {
    if let Some(desk) = Board::attached().and_then(|board| board.desks.get(desk.value())) {
        desk.get_up();
    }
}

#[pg_guard]
extern "C-unwind" fn detach(_code: i32, _argument: pg_sys::Datum) {
    // SAFETY: plain globals of this process.
    let (database, pid) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
    for space in roster::spaces() {
        if space.database() == database && space.worker_pid() == pid as u32 {
            space.detach_worker();
        }
    }
}
