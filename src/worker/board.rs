//! Where launcher, workers and everybody else leave word for each other, in shared memory.
//!
//! Locks: none. A word is written by one process at a time: `database` by the launcher alone, `pid` and `report` by
//! the worker that sits at the desk (and by the launcher while nobody does), `wanted` by compare-and-swap.

use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

use pgrx::{pg_guard, pg_shmem_init, pg_sys};

use crate::compat;

/// Databases that can be asked for between two looks of the launcher, before it is told to try them all.
const WANTED: usize = 64;

/// What a worker says of itself. The numbers are kept in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Report {
    /// Nothing yet.
    Silent = 0,
    /// The database is served.
    Serving = 1,
    /// The database has no extension.
    Absent = 2,
    /// It left because somebody wants the database for themselves.
    Yielded = 3,
    /// Another worker serves the database already.
    Taken = 4,
    /// The extension was created anew: start again at once.
    Anew = 5,
}

impl Report {
    fn of(number: u32) -> Report {
        match number {
            1 => Report::Serving,
            2 => Report::Absent,
            3 => Report::Yielded,
            4 => Report::Taken,
            5 => Report::Anew,
            _ => Report::Silent,
        }
    }
}

/// One worker's place.
#[repr(C)]
pub struct Desk {
    database: AtomicU32,
    pid: AtomicI32,
    report: AtomicU32,
    /// The launcher wants the worker to go.
    dismissed: AtomicBool,
}

impl Desk {
    /// The database it was given out for; 0: free.
    pub fn database(&self) -> u32 {
        self.database.load(SeqCst)
    }

    /// Whether a worker sits at it.
    pub fn is_taken(&self) -> bool {
        self.pid.load(SeqCst) != 0
    }

    /// What the worker said last.
    pub fn report(&self) -> Report {
        Report::of(self.report.load(SeqCst))
    }

    /// Gives the desk out for a database, with the word of a former worker wiped off.
    pub fn assign(&self, database: u32) {
        self.report.store(Report::Silent as u32, SeqCst);
        self.dismissed.store(false, SeqCst);
        self.database.store(database, SeqCst);
    }

    /// Takes the desk back.
    pub fn clear(&self) {
        self.pid.store(0, SeqCst);
        self.database.store(0, SeqCst);
    }

    /// Asks the worker to go; it looks several times a second.
    pub fn dismiss(&self) {
        self.dismissed.store(true, SeqCst);
    }

    /// Whether the worker was asked to go.
    pub fn is_dismissed(&self) -> bool {
        self.dismissed.load(Relaxed)
    }

    /// The worker's word.
    pub fn say(&self, report: Report) {
        self.report.store(report as u32, SeqCst);
        if let Some(board) = Board::attached() {
            board.wake_launcher();
        }
    }

    /// Seats this process.
    pub fn sit_down(&self) {
        self.pid.store(std::process::id() as i32, SeqCst);
    }

    /// Leaves the desk.
    pub fn get_up(&self) {
        self.pid.store(0, SeqCst);
        if let Some(board) = Board::attached() {
            board.wake_launcher();
        }
    }
}

#[repr(C)]
struct Head {
    latch: AtomicPtr<pg_sys::Latch>,
    /// More databases were asked for than `wanted` has room for.
    all_wanted: AtomicBool,
    wanted: [AtomicU32; WANTED],
}

/// The board as this process sees it.
pub struct Board {
    head: &'static Head,
    pub desks: &'static [Desk],
}

static BOARD: AtomicPtr<Board> = AtomicPtr::new(std::ptr::null_mut());

impl Board {
    /// The board, or nothing where the library was not preloaded.
    pub fn attached() -> Option<&'static Board> {
        // SAFETY: null, or a leaked box that lives for ever.
        unsafe { BOARD.load(Relaxed).as_ref() }
    }

    /// Asks for a worker in a database.
    pub fn poke(&self, database: pg_sys::Oid) {
        let database = database.to_u32();
        let wanted = &self.head.wanted;
        let noted = wanted.iter().any(|cell| cell.load(SeqCst) == database)
            || wanted
                .iter()
                .any(|cell| cell.compare_exchange(0, database, SeqCst, SeqCst).is_ok());
        if !noted {
            self.head.all_wanted.store(true, SeqCst);
        }
        self.wake_launcher();
    }

    /// Takes what was asked for: the databases, and whether there were more than could be noted.
    pub fn take_wanted(&self) -> (Vec<u32>, bool) {
        let all = self.head.all_wanted.swap(false, SeqCst);
        let some = self.head.wanted.iter().map(|cell| cell.swap(0, SeqCst));
        (some.filter(|&database| database != 0).collect(), all)
    }

    /// Sets the launcher's latch, if there is a launcher.
    pub fn wake_launcher(&self) {
        let latch = self.head.latch.load(SeqCst);
        if !latch.is_null() {
            // SAFETY: the latch of a process, kept in shared memory for as long as the server runs.
            unsafe { compat::set_latch(latch) };
        }
    }

    /// Makes this process the launcher that is woken.
    pub fn launcher_arrives(&self) {
        self.head.latch.store(compat::my_latch(), SeqCst);
    }

    /// Ends that.
    pub fn launcher_leaves(&self) {
        self.head.latch.store(std::ptr::null_mut(), SeqCst);
    }
}

struct Memory;

/// Nothing: the block is laid out by hand, not from a value.
struct Nothing;

// SAFETY: there is nothing to share.
unsafe impl pgrx::PGRXSharedMemory for Nothing {}

/// As many desks as there can be workers.
fn desks() -> usize {
    // SAFETY: a plain global, set from the configuration before shared memory is laid out.
    unsafe { pg_sys::max_worker_processes.max(1) as usize }
}

fn size() -> usize {
    size_of::<Head>() + desks() * size_of::<Desk>()
}

impl pgrx::PgSharedMemoryInitialization for Memory {
    type Value = Nothing;

    unsafe fn on_shmem_request(&'static self) {
        // SAFETY: called from the request hook, as the function asks.
        unsafe { pg_sys::RequestAddinShmemSpace(size()) };
    }

    unsafe fn on_shmem_startup(&'static self, _: Nothing) {
        // AddinShmemInitLock has no binding; it is this one in every version since 9.5.
        const ADDIN_SHMEM_INIT: usize = 21;
        // SAFETY: called from the startup hook, with the block requested above. ShmemInitStruct gives memory aligned
        // to a cache line that stays mapped for ever. All fields are atomics, for which zeroes are valid, so shared
        // references may be handed out freely.
        unsafe {
            let guard = &raw mut (*pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT)).lock;
            pg_sys::LWLockAcquire(guard, pg_sys::LWLockMode::LW_EXCLUSIVE);
            let mut found = false;
            let base = pg_sys::ShmemInitStruct(c"pg_presence board".as_ptr(), size(), &mut found)
                .cast::<u8>();
            if !found {
                base.write_bytes(0, size());
            }
            let board = Board {
                head: &*base.cast::<Head>(),
                desks: std::slice::from_raw_parts(
                    base.add(size_of::<Head>()).cast::<Desk>(),
                    desks(),
                ),
            };
            BOARD.store(Box::leak(Box::new(board)), Relaxed);
            pg_sys::LWLockRelease(guard);
        }
    }
}

static MEMORY: Memory = Memory;

/// Asks for the board's shared memory.
pub fn init() {
    pg_shmem_init!(MEMORY = Nothing);
}
