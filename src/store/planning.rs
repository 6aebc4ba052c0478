//! How our statements are planned: with the plan we know to be right, and without looking at their arguments.
//!
//! Left to itself the planner may take a table that was empty a minute ago for an empty one, and join a batch of
//! thousands to it row by row without an index.

use std::{cell::Cell, ffi::CStr};

use pgrx::pg_sys;

/// How a statement finds its rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A few, by index.
    Few,
    /// Batches, by index or by place.
    Many,
    /// Batches that are joined with an argument. As the planner takes ten for the length of an array, and may take the
    /// table for as large as it was when it was analyzed last, it would read all of the table and look through the array
    /// for each row, or the other way round. So the statement also says `= ANY`, which leaves nothing to read but the
    /// batch, and nothing but hashing to join that with.
    Joined,
    /// A table from one end to the other.
    All,
}

/// Settings, until it is dropped.
pub struct Settings(i32);

impl Settings {
    /// To be called in a transaction, with settings that exist in every version.
    pub fn choose(settings: &[(&CStr, &CStr)]) -> Settings {
        // SAFETY: paired with AtEOXact_GUC in `drop`, or undone by the abort if an error gets past it.
        let level = unsafe { pg_sys::NewGUCNestLevel() };
        for (name, value) in settings {
            // SAFETY: names and values are C strings.
            unsafe {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
        }
        Settings(level)
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // With an error on its way, the abort of the (sub)transaction restores settings itself.
        if !std::thread::panicking() {
            // SAFETY: the level that `choose` opened.
            unsafe { pg_sys::AtEOXact_GUC(false, self.0) };
        }
    }
}

/// The settings that one access is planned with, until they are dropped.
pub fn choose(access: Access) -> Settings {
    let seqscan = if access == Access::All { c"on" } else { c"off" };
    let (hashjoin, nestloop) = match access {
        Access::Joined => (c"on", c"off"),
        _ => (c"off", c"on"),
    };
    Settings::choose(&[
        (c"plan_cache_mode", c"force_generic_plan"),
        (c"enable_seqscan", seqscan),
        (c"enable_hashjoin", hashjoin),
        (c"enable_nestloop", nestloop),
        (c"enable_mergejoin", c"off"),
        (c"enable_bitmapscan", c"off"),
        (c"jit", c"off"),
    ])
}

thread_local! {
    static RENAMES: Cell<u32> = const { Cell::new(0) };
    static WATCHING: Cell<bool> = const { Cell::new(false) };
}

/// A number that changes when a schema may have been renamed.
pub fn schema_renames() -> u32 {
    if !WATCHING.replace(true) {
        // SAFETY: the callback only counts, and stays in memory, as a library is never unloaded.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(
                pg_sys::SysCacheIdentifier::NAMESPACEOID as i32,
                Some(schema_changed),
                pg_sys::Datum::null(),
            )
        };
    }
    RENAMES.get()
}

unsafe extern "C-unwind" fn schema_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    RENAMES.set(RENAMES.get().wrapping_add(1));
}
