//! What an UPDATE by plain SQL means for a session: a beat, an end, or neither.
//!
//! A statement that sets only what it means to change is taken literally: `last_activity`, or `is_active = true`, is a
//! beat; `is_active = false` is an end. One that writes back a whole row repeats values that it has read earlier, so
//! only values that differ from the row count, and only newer ones: a stale copy neither beats nor revives.

use super::fields::{Column, ColumnSet, SessionFields};
use crate::rules::time::{Micros, USECS_PER_MSEC};

/// What an UPDATE means for a session that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Neither a beat nor an end.
    None,
    /// A beat, at this time if the statement sets one.
    Beat(Option<Micros>),
    /// The end.
    End,
}

/// Returns what an UPDATE at `now` means for a session that has not ended.
pub fn intent_of(old: &SessionFields, new: &SessionFields, set: ColumnSet, now: Micros) -> Intent {
    let whole_row = set.is_whole_row();
    let newer = is_newer(old.last_activity, new.last_activity, now);
    let beat = set.has(Column::LastActivity) && (newer || !whole_row);
    let flipped = old.is_active != new.is_active;
    let active = (set.has(Column::IsActive) && (flipped || !whole_row))
        .then_some(new.is_active)
        .flatten();
    match active {
        Some(false) => Intent::End,
        _ if beat => Intent::Beat(new.last_activity),
        Some(true) if !whole_row => Intent::Beat(None),
        _ => Intent::None,
    }
}

/// Returns whether `new` is later than `old`. A time that a client has truncated to milliseconds and writes back is
/// not. Any other time is later than one in the future, which is of before the clock was set back.
fn is_newer(old: Option<Micros>, new: Option<Micros>, now: Micros) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => new > old || old > now && !is_same_time(Some(old), Some(new)),
        (None, new) => new.is_some(),
        (_, None) => false,
    }
}

/// Returns whether two times are equal to within a millisecond, the precision that some clients keep.
pub fn is_same_time(a: Option<Micros>, b: Option<Micros>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.abs_diff(b) < USECS_PER_MSEC.unsigned_abs(),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: Micros = 10 * USECS_PER_MSEC;
    const LATER: Micros = 20 * USECS_PER_MSEC;

    fn row(is_active: bool, last_activity: Micros) -> SessionFields<'static> {
        SessionFields {
            is_active: Some(is_active),
            last_activity: Some(last_activity),
            ..SessionFields::default()
        }
    }

    fn intent(old: &SessionFields, new: &SessionFields, set: ColumnSet) -> Intent {
        intent_of(old, new, set, LATER)
    }

    fn column_set(columns: &[Column]) -> ColumnSet {
        ColumnSet::of(columns.iter().copied())
    }

    fn whole_row() -> ColumnSet {
        use Column::{AuthId, CreatedAt, Id, IsActive, LastActivity, Metadata};
        column_set(&[Id, AuthId, CreatedAt, IsActive, LastActivity, Metadata])
    }

    #[test]
    fn setting_last_activity_by_name_is_a_beat_at_any_time() {
        let set = column_set(&[Column::LastActivity]);
        for at in [0, EARLIER, LATER] {
            for was_active in [true, false] {
                let (old, new) = (row(was_active, EARLIER), row(was_active, at));
                assert_eq!(intent(&old, &new, set), Intent::Beat(Some(at)));
            }
        }
    }

    #[test]
    fn setting_is_active_by_name_beats_or_ends_even_if_unchanged() {
        let set = column_set(&[Column::IsActive, Column::Metadata]);
        for was_active in [true, false] {
            let old = row(was_active, EARLIER);
            assert_eq!(intent(&old, &row(false, EARLIER), set), Intent::End);
            assert_eq!(intent(&old, &row(true, EARLIER), set), Intent::Beat(None));
        }
    }

    #[test]
    fn an_end_overrides_activity_in_the_same_statement() {
        let old = row(true, EARLIER);
        let new = row(false, LATER);
        let set = column_set(&[Column::IsActive, Column::LastActivity]);
        assert_eq!(intent(&old, &new, set), Intent::End);
        assert_eq!(intent(&old, &new, whole_row()), Intent::End);
    }

    #[test]
    fn an_unchanged_row_written_back_has_no_intent() {
        for is_active in [true, false] {
            let same = row(is_active, EARLIER);
            assert_eq!(intent(&same, &same, whole_row()), Intent::None);
        }
    }

    #[test]
    fn a_stale_copy_neither_beats_nor_revives() {
        // Read while active, written back after a timeout, or after later beats.
        assert_eq!(
            intent(&row(false, EARLIER), &row(true, EARLIER), whole_row()),
            Intent::None
        );
        assert_eq!(
            intent(&row(false, LATER), &row(true, EARLIER), whole_row()),
            Intent::None
        );
        assert_eq!(
            intent(&row(true, LATER), &row(true, EARLIER), whole_row()),
            Intent::None
        );
        // Some clients keep milliseconds only.
        assert_eq!(
            intent(&row(true, EARLIER + 999), &row(true, EARLIER), whole_row()),
            Intent::None
        );
    }

    #[test]
    fn a_whole_row_with_newer_activity_is_a_beat() {
        assert_eq!(
            intent(&row(true, EARLIER), &row(true, LATER), whole_row()),
            Intent::Beat(Some(LATER))
        );
        assert_eq!(
            intent(&row(false, EARLIER), &row(false, LATER), whole_row()),
            Intent::Beat(Some(LATER))
        );
    }

    #[test]
    fn a_whole_row_is_a_beat_after_activity_in_the_future() {
        let future = row(true, 2 * LATER);
        assert_eq!(
            intent(&future, &row(true, EARLIER), whole_row()),
            Intent::Beat(Some(EARLIER))
        );
        assert_eq!(intent(&future, &future, whole_row()), Intent::None);
    }

    #[test]
    fn metadata_alone_has_no_intent() {
        let same = row(true, EARLIER);
        assert_eq!(intent(&same, &same, column_set(&[Column::Metadata])), Intent::None);
    }

    #[test]
    fn times_are_the_same_within_a_millisecond() {
        assert!(is_same_time(Some(EARLIER), Some(EARLIER + 999)));
        assert!(!is_same_time(Some(EARLIER), Some(EARLIER + USECS_PER_MSEC)));
        assert!(is_same_time(None, None));
        assert!(!is_same_time(None, Some(EARLIER)));
        assert!(!is_same_time(Some(Micros::MIN), Some(Micros::MAX)));
    }
}
