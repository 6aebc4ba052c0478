//! How our statements are planned: with a generic plan, of the shape that is known to be right.
//!
//! Left to itself, the planner may assume that a table is empty because it was empty a minute ago, and join a batch of
//! thousands to it row by row without an index.

use std::{cell::Cell, ffi::CStr};

use pgrx::pg_sys;

/// How a statement finds its rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A few, by index.
    Few,
    /// Batches, by index or by ctid.
    Many,
    /// Batches that are joined with an array argument. The planner assumes arrays of ten elements and may have stale
    /// table statistics, and would then pick a sequential scan or a nested loop over the whole array. So the statement
    /// also has `= ANY`, which limits the scan to the batch, and only a hash join is left to join it.
    Joined,
    /// A whole table, by a sequential scan.
    All,
}

/// Settings that are in effect until it is dropped.
pub struct SettingsScope(i32);

impl SettingsScope {
    /// Sets settings, each of which has to exist in every supported version. To be called in a transaction.
    pub fn set(settings: &[(&CStr, &CStr)]) -> SettingsScope {
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
        SettingsScope(level)
    }
}

impl Drop for SettingsScope {
    fn drop(&mut self) {
        // When an error unwinds, the abort of the (sub)transaction restores settings itself.
        if !std::thread::panicking() {
            // SAFETY: closes the level that `set` opened.
            unsafe { pg_sys::AtEOXact_GUC(false, self.0) };
        }
    }
}

/// Makes the planner choose the plan for `access`, until the result is dropped.
pub fn force_plan(access: Access) -> SettingsScope {
    let seqscan = if access == Access::All { c"on" } else { c"off" };
    let (hashjoin, nestloop) = match access {
        Access::Joined => (c"on", c"off"),
        _ => (c"off", c"on"),
    };
    SettingsScope::set(&[
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
    static SCHEMA_CHANGES: Cell<u32> = const { Cell::new(0) };
    static IS_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Returns a number that changes whenever a schema may have been renamed.
pub fn schema_changes() -> u32 {
    if !IS_REGISTERED.replace(true) {
        // SAFETY: the callback only counts, and stays in memory, as a library is never unloaded.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(
                pg_sys::SysCacheIdentifier::NAMESPACEOID as i32,
                Some(on_schema_change),
                pg_sys::Datum::null(),
            )
        };
    }
    SCHEMA_CHANGES.get()
}

unsafe extern "C-unwind" fn on_schema_change(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    SCHEMA_CHANGES.set(SCHEMA_CHANGES.get().wrapping_add(1));
}
