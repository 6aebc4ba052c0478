//! One worker as the launcher holds it: a desk, and PostgreSQL's handle on the process.

use std::time::{Duration, Instant};

use pgrx::{bgworkers::BackgroundWorkerBuilder, pg_sys};

use super::{LIBRARY, board::Board};

/// How long a desk found without a worker may be that of a worker on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// A desk given out, and who sits there.
pub struct Post {
    pub desk: usize,
    hold: Hold,
}

enum Hold {
    /// Started by this launcher.
    Handle(*mut pg_sys::BackgroundWorkerHandle),
    /// Started by one before: no handle, only the desk to look at.
    Found(Instant),
}

impl Post {
    /// Starts a worker for a database, or gives nothing where no slot or desk is free.
    pub fn open(board: &'static Board, database: u32) -> Option<Post> {
        let desk = board.desks.iter().position(|desk| desk.database() == 0)?;
        board.desks[desk].assign(database);
        let builder =
            BackgroundWorkerBuilder::new(&format!("pg_presence worker for database {database}"))
                .set_type("pg_presence worker")
                .set_library(LIBRARY)
                .set_function("pg_presence_worker")
                .enable_spi_access()
                .set_restart_time(None)
                .set_argument(Some(pg_sys::Datum::from(database)))
                .set_extra(&desk.to_string())
                // SAFETY: a plain global of this process.
                .set_notify_pid(unsafe { pg_sys::MyProcPid });
        let mut worker = pg_sys::BackgroundWorker::from(&builder);
        let mut handle = std::ptr::null_mut();
        // SAFETY: both point at locals; the server copies the first and sets the second on success. The handle is
        // allocated in the context that lives as long as this process.
        let registered = unsafe {
            let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let registered = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
            pg_sys::MemoryContextSwitchTo(before);
            registered
        };
        if !registered {
            board.desks[desk].clear();
            return None;
        }
        Some(Post {
            desk,
            hold: Hold::Handle(handle),
        })
    }

    /// Takes over a desk that a launcher before this one gave out.
    pub fn found(desk: usize) -> Post {
        Post {
            desk,
            hold: Hold::Found(Instant::now()),
        }
    }

    /// Whether the worker runs or is about to.
    pub fn is_alive(&self, board: &'static Board) -> bool {
        match self.hold {
            Hold::Handle(handle) => {
                let mut pid = 0;
                // SAFETY: a handle that the server gave us and that only `close` frees.
                let status = unsafe { pg_sys::GetBackgroundWorkerPid(handle, &mut pid) };
                status != pg_sys::BgwHandleStatus::BGWH_STOPPED
            }
            Hold::Found(since) => board.desks[self.desk].is_taken() || since.elapsed() < ON_ITS_WAY,
        }
    }

    /// Gives the desk back, once the worker is gone.
    pub fn close(self, board: &'static Board) {
        board.desks[self.desk].clear();
        if let Hold::Handle(handle) = self.hold {
            // SAFETY: allocated by the server for us, and used no more.
            unsafe { pg_sys::pfree(handle.cast()) };
        }
    }
}
