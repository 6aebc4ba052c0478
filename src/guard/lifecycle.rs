//! What an UPDATE by plain SQL means for a session: a beat, its end, or nothing.
//!
//! A statement that names only what it means to change is taken by its word: `last_activity`, or `is_active = true`, is
//! a beat; `is_active = false` ends. One that writes a whole row back repeats values it once read, so there only what
//! differs from the row counts, and only what is newer: a stale copy neither beats nor revives.

use super::fields::{Column, Fields, Set};
use crate::core::time::{Micros, USECS_PER_MSEC};

/// What an UPDATE says about a session that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Neither of the below.
    Nothing,
    /// It was active: at the time given, if one was.
    Beat(Option<Micros>),
    /// It has ended.
    End,
}

/// Reads an UPDATE of a session that has not ended.
pub fn said(old: &Fields, new: &Fields, set: Set) -> Said {
    let whole_row = set.is_whole_row();
    let given = new.last_activity;
    let newer = is_newer(old.last_activity, given);
    let beat = set.has(Column::LastActivity) && (newer || !whole_row);
    let flipped = old.is_active != new.is_active;
    let active = (set.has(Column::IsActive) && (flipped || !whole_row))
        .then_some(new.is_active)
        .flatten();
    match active {
        Some(false) => Said::End,
        _ if beat => Said::Beat(given),
        Some(true) if !whole_row => Said::Beat(None),
        _ => Said::Nothing,
    }
}

/// Whether a time is later. Clients that keep milliseconds give one back truncated, which is not.
fn is_newer(old: Option<Micros>, new: Option<Micros>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => new > old,
        (None, new) => new.is_some(),
        (_, None) => false,
    }
}

/// Whether two times are the same for somebody who keeps milliseconds only.
pub fn is_same_time(a: Option<Micros>, b: Option<Micros>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.abs_diff(b) < USECS_PER_MSEC.unsigned_abs(),
        (a, b) => a == b,
    }
}
