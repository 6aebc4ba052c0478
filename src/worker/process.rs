//! The worker's process: how it starts and how it exits.

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

/// Settings that our statements rely on. The database or the role may have other values set.
const SETTINGS: &[(&CStr, &CStr)] = &[
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"session_replication_role", c"origin"),
    (c"row_security", c"on"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_deferrable", c"off"),
    // Changes that are notified must survive a crash of this server; the worker does not wait for standbys.
    (c"synchronous_commit", c"local"),
    (c"statement_timeout", c"0"),
    // Locked rows are skipped and table locks are tried without waiting; any lock still waited for should be short.
    (c"lock_timeout", c"100ms"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"idle_session_timeout", c"0"),
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    (c"transaction_timeout", c"0"),
    (c"default_tablespace", c""),
    (c"application_name", c"pg_presence"),
];

/// The entry point of a worker. When it stops by itself, it exits with code 0; the launcher decides what comes next.
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
    // SAFETY: a callback that only writes to shared memory and cannot fail. It is registered before the connection is
    // made, so it runs after the locks are released: the next worker can take its lock.
    unsafe { pg_sys::before_shmem_exit(Some(detach_slot), pg_sys::Datum::from(number)) };

    // Connecting may wait for a DROP DATABASE; meanwhile SIGTERM ends the process, as in any background worker.
    signals::attach(slot);
    // SAFETY: the first use of signals and of a database in this process.
    unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
    }
    signals::attach_connected();
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP);
    // A SIGHUP before the handlers were attached was missed.
    signals::reload_configuration();
    pin_settings();

    let status = if locks::try_lock_worker(database) {
        match Worker::start(slot, database) {
            Ok(mut worker) => {
                // SAFETY: a callback that only writes to shared memory and cannot fail. It runs before the locks are
                // released.
                unsafe { pg_sys::before_shmem_exit(Some(detach_tenant), pg_sys::Datum::from(0)) };
                slot.set_status(WorkerStatus::Serving);
                if signals::shutdown_requested() {
                    WorkerStatus::Terminated
                } else {
                    worker.serve()
                }
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
        // SAFETY: both are C strings; the settings exist in the versions that they are listed for. The worker is a
        // superuser.
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
