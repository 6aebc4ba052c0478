//! The worker's process: how it begins and how it ends.

use std::ffi::CStr;

use pgrx::{
    bgworkers::{BackgroundWorker, SignalWakeFlags},
    pg_sys,
    prelude::*,
};

use super::{main_loop::Worker, signals};
use crate::{
    launcher::{
        locks,
        slots::{WorkerStatus, slots},
    },
    roster,
};

/// What the owner of the database, or of a role, may have set otherwise, and what our statements rely on.
const SETTINGS: &[(&CStr, &CStr)] = &[
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"session_replication_role", c"origin"),
    (c"row_security", c"on"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_deferrable", c"off"),
    // What is notified has to survive a crash of this server; waiting for standbys is for those who ask for it.
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
    let number = BackgroundWorker::get_extra().parse::<usize>().ok();
    let assigned = number.and_then(|number| Some((number, slots().get(number)?)));
    let Some((number, slot)) = assigned.filter(|(_, slot)| slot.database() == database.to_u32()) else {
        return;
    };
    slot.attach();
    // SAFETY: a callback that only writes to shared memory and cannot fail. Registered before the connection, it runs after
    // that is closed and its locks are released: the next worker finds the place free.
    unsafe { pg_sys::before_shmem_exit(Some(detach_slot), pg_sys::Datum::from(number)) };

    // While it connects, which may wait for a DROP DATABASE, SIGTERM ends the process as it does any other worker.
    // SAFETY: the first thing that touches signals and database in this process.
    unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
    }
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // A reload while there was no handler has been missed.
    signals::reload_configuration();
    pin_settings();

    let status = if locks::try_lock_worker(database) {
        match Worker::begin(slot, database) {
            Ok(mut worker) => {
                // SAFETY: as above. It runs before the locks are released.
                unsafe { pg_sys::before_shmem_exit(Some(detach_tenant), pg_sys::Datum::from(0)) };
                slot.set_status(WorkerStatus::Serving);
                worker.serve()
            }
            Err(status) => status,
        }
    } else {
        WorkerStatus::AlreadyRunning
    };
    slot.set_status(status);
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

#[pg_guard]
extern "C-unwind" fn detach_slot(_code: i32, number: pg_sys::Datum) {
    if let Some(slot) = slots().get(number.value()) {
        slot.detach();
    }
}

#[pg_guard]
extern "C-unwind" fn detach_tenant(_code: i32, _argument: pg_sys::Datum) {
    // SAFETY: reads global variables of this process.
    let (database, pid) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
    for tenant in roster::tenants() {
        if tenant.database() == database && tenant.worker_pid() == pid as u32 {
            tenant.detach_worker();
        }
    }
}
