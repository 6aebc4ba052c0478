//! The server's background workers, of which max_worker_processes can run.

use std::ffi::CStr;

use pgrx::pg_sys;

/// The type of our workers, as pg_stat_activity shows it.
pub const WORKER_TYPE: &str = "pg_presence worker";
/// PostgreSQL's own, which end with the query that they work for.
const PARALLEL_WORKER_TYPE: &str = "parallel worker";

/// Whether as many background workers are running as can. Leaves out those that end soon: of a parallel query, and those
/// of our own that `is_serving` does not know by their process ids.
pub fn are_used_up(is_serving: impl Fn(i32) -> bool) -> bool {
    let used = running().into_iter().filter(|(pid, kind)| match kind.as_str() {
        PARALLEL_WORKER_TYPE => false,
        WORKER_TYPE => is_serving(*pid),
        _ => true,
    });
    // SAFETY: reads a global of this process.
    used.count() >= unsafe { pg_sys::max_worker_processes } as usize
}

/// Returns process id and type of the background workers that are running.
fn running() -> Vec<(i32, String)> {
    // SAFETY: the entries are this process's copy, which lives until the transaction ends. The type is in a static buffer,
    // copied before the next call.
    unsafe {
        (1..=pg_sys::pgstat_fetch_stat_numbackends())
            .filter_map(|index| {
                let status = &local_status(index).as_ref()?.backendStatus;
                if status.st_backendType != pg_sys::BackendType::B_BG_WORKER {
                    return None;
                }
                let kind = pg_sys::GetBackgroundWorkerTypeByPid(status.st_procpid);
                // Null: it has exited since.
                (!kind.is_null()).then(|| (status.st_procpid, CStr::from_ptr(kind).to_string_lossy().into_owned()))
            })
            .collect()
    }
}

/// # Safety
/// `index` is at most the number of entries. The result may be null.
unsafe fn local_status(index: i32) -> *mut pg_sys::LocalPgBackendStatus {
    // SAFETY: as the caller promises.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pgstat_fetch_stat_local_beentry(index)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::pgstat_get_local_beentry_by_index(index)
        }
    }
}
