//! Marks our own writes of what the roster already knows, which the triggers on our tables ignore.
//!
//! Only the statement itself is ours. What a trigger of somebody else makes of its rows, or writes while it runs, counts
//! as any other write.

use std::cell::Cell;

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{roster::RowImage, rules::time::Micros};

/// The values to write to a row of `user_sessions`.
#[derive(Clone, Copy, Debug)]
pub struct SessionUpdate {
    pub id: Uuid,
    pub last_activity: Micros,
    pub is_active: bool,
    pub ended_at: Option<Micros>,
}

/// A statement of ours that is running.
#[derive(Clone, Copy)]
struct Running {
    rows: *const [SessionUpdate],
    /// An activity that the table has from after this is replaced.
    now: Micros,
    /// How many triggers are running inside each other when the statement fires one.
    trigger_depth: i32,
}

thread_local! {
    static RUNNING: Cell<Option<Running>> = const { Cell::new(None) };
}

/// Runs `f`, whose statement writes `rows`; the triggers neither correct nor capture them. An activity that the table has
/// from after `now` is replaced, any other only by a later one.
pub fn run<R>(rows: &[SessionUpdate], now: Micros, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Running>);
    impl Drop for Restore {
        fn drop(&mut self) {
            RUNNING.set(self.0);
        }
    }
    let mut sorted = rows.to_vec();
    sorted.sort_unstable_by_key(|row| row.id);
    let running = Running {
        rows: sorted.as_slice(),
        now,
        trigger_depth: trigger_depth() + 1,
    };
    let _restore = Restore(RUNNING.replace(Some(running)));
    f()
}

/// Runs `f`, whose statement writes rows of `user_presence` that the roster need not be compared with.
pub fn run_on_presence<R>(f: impl FnOnce() -> R) -> R {
    run(&[], Micros::MAX, f)
}

/// Whether the trigger that is running was fired by such a statement itself.
pub fn is_running() -> bool {
    running().is_some()
}

/// Returns what such a statement makes of a row, if it has fired the trigger that is running.
pub fn intended(old: &RowImage) -> Option<RowImage> {
    let running = running()?;
    // SAFETY: the list lives until `run` has returned, which resets the variable first.
    let rows = unsafe { &*running.rows };
    let row = &rows[rows.binary_search_by_key(&old.id, |row| row.id).ok()?];
    let last_activity = match old.last_activity > running.now {
        true => row.last_activity,
        false => old.last_activity.max(row.last_activity),
    };
    Some(RowImage {
        last_activity,
        is_active: row.is_active,
        ended: row.ended_at.is_some(),
        ..*old
    })
}

fn running() -> Option<Running> {
    RUNNING.get().filter(|running| running.trigger_depth == trigger_depth())
}

fn trigger_depth() -> i32 {
    // SAFETY: a function of PostgreSQL that returns a variable and does not read its arguments.
    unsafe { pg_sys::pg_trigger_depth(std::ptr::null_mut()) }.value() as i32
}
