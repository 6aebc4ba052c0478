//! What an UPDATE by plain SQL means for a session: a beat, its end, or nothing.
//!
//! A statement that names only what it means to change is taken by its word: `last_activity`, or `is_active = true`, is
//! a beat; `is_active = false` ends. One that writes a whole row back repeats values it once read, so there only what
//! differs from the row counts, and only what is newer: a stale copy neither beats nor revives.

use super::fields::{Column, ColumnSet, SessionFields};
use crate::rules::time::{Micros, USECS_PER_MSEC};

/// What an UPDATE says about a session that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Neither of the below.
    None,
    /// It was active: at the time given, if one was.
    Beat(Option<Micros>),
    /// It has ended.
    End,
}

/// Reads an UPDATE of a session that has not ended.
pub fn intent_of(old: &SessionFields, new: &SessionFields, set: ColumnSet) -> Intent {
    let whole_row = set.is_whole_row();
    let given = new.last_activity;
    let newer = is_newer(old.last_activity, given);
    let beat = set.has(Column::LastActivity) && (newer || !whole_row);
    let flipped = old.is_active != new.is_active;
    let active = (set.has(Column::IsActive) && (flipped || !whole_row))
        .then_some(new.is_active)
        .flatten();
    match active {
        Some(false) => Intent::End,
        _ if beat => Intent::Beat(given),
        Some(true) if !whole_row => Intent::Beat(None),
        _ => Intent::None,
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

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Micros = 10 * USECS_PER_MSEC;
    const LATER: Micros = 20 * USECS_PER_MSEC;

    fn row(is_active: bool, last_activity: Micros) -> SessionFields<'static> {
        SessionFields {
            is_active: Some(is_active),
            last_activity: Some(last_activity),
            ..SessionFields::default()
        }
    }

    fn targeted(columns: &[Column]) -> ColumnSet {
        ColumnSet::of(columns.iter().copied())
    }

    fn whole_row() -> ColumnSet {
        use Column::{AuthId, CreatedAt, Id, IsActive, LastActivity, Metadata};
        targeted(&[Id, AuthId, CreatedAt, IsActive, LastActivity, Metadata])
    }

    #[test]
    fn last_activity_by_name_is_a_beat_whatever_it_says() {
        let set = targeted(&[Column::LastActivity]);
        for at in [0, READ, LATER] {
            for was_active in [true, false] {
                let (old, new) = (row(was_active, READ), row(was_active, at));
                assert_eq!(intent_of(&old, &new, set), Intent::Beat(Some(at)));
            }
        }
    }

    #[test]
    fn is_active_by_name_ends_or_beats_also_where_it_is_so_already() {
        let set = targeted(&[Column::IsActive, Column::Metadata]);
        for was_active in [true, false] {
            let old = row(was_active, READ);
            assert_eq!(intent_of(&old, &row(false, READ), set), Intent::End);
            assert_eq!(intent_of(&old, &row(true, READ), set), Intent::Beat(None));
        }
    }

    #[test]
    fn an_end_counts_more_than_the_activity_beside_it() {
        let old = row(true, READ);
        let new = row(false, LATER);
        let set = targeted(&[Column::IsActive, Column::LastActivity]);
        assert_eq!(intent_of(&old, &new, set), Intent::End);
        assert_eq!(intent_of(&old, &new, whole_row()), Intent::End);
    }

    #[test]
    fn a_row_written_back_as_it_was_says_nothing() {
        for is_active in [true, false] {
            let same = row(is_active, READ);
            assert_eq!(intent_of(&same, &same, whole_row()), Intent::None);
        }
    }

    #[test]
    fn a_stale_copy_neither_beats_nor_revives() {
        // Read while active, written back after a timeout, or after later beats.
        assert_eq!(
            intent_of(&row(false, READ), &row(true, READ), whole_row()),
            Intent::None
        );
        assert_eq!(
            intent_of(&row(false, LATER), &row(true, READ), whole_row()),
            Intent::None
        );
        assert_eq!(
            intent_of(&row(true, LATER), &row(true, READ), whole_row()),
            Intent::None
        );
        // Milliseconds are all that some clients keep.
        assert_eq!(
            intent_of(&row(true, READ + 999), &row(true, READ), whole_row()),
            Intent::None
        );
    }

    #[test]
    fn a_whole_row_with_newer_activity_is_a_beat() {
        assert_eq!(
            intent_of(&row(true, READ), &row(true, LATER), whole_row()),
            Intent::Beat(Some(LATER))
        );
        assert_eq!(
            intent_of(&row(false, READ), &row(false, LATER), whole_row()),
            Intent::Beat(Some(LATER))
        );
    }

    #[test]
    fn metadata_alone_says_nothing() {
        let same = row(true, READ);
        assert_eq!(intent_of(&same, &same, targeted(&[Column::Metadata])), Intent::None);
    }

    #[test]
    fn times_are_the_same_within_a_millisecond() {
        assert!(is_same_time(Some(READ), Some(READ + 999)));
        assert!(!is_same_time(Some(READ), Some(READ + USECS_PER_MSEC)));
        assert!(is_same_time(None, None));
        assert!(!is_same_time(None, Some(READ)));
        assert!(!is_same_time(Some(Micros::MIN), Some(Micros::MAX)));
    }
}
