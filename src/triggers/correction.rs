//! The columns of a row that a BEFORE trigger replaces.

use pgrx::{IntoDatum, pg_sys};
use uuid::Uuid;

use super::{
    call::TriggerResult,
    fields::{Column, SessionFields},
    row::TriggerRow,
};
use crate::pg::text;

const COLUMNS: usize = Column::ALL.len();

/// The row with every field of `wanted` that differs from `given` in its place, and `metadata` if it is replaced.
pub fn correct(
    row: &TriggerRow,
    given: &SessionFields,
    wanted: &SessionFields,
    metadata: Option<pg_sys::Datum>,
) -> TriggerResult {
    let mut replaced = Replacements::default();
    let uuid = |id: &Uuid| pgrx::Uuid::from_bytes(*id.as_bytes()).into_datum();
    replaced.note(Column::Id, &given.id, &wanted.id, uuid);
    replaced.note(Column::UserId, &given.user_id, &wanted.user_id, uuid);
    replaced.note(Column::AuthId, &given.auth_id, &wanted.auth_id, uuid);
    replaced.note(
        Column::SessionToken,
        &given.session_token,
        &wanted.session_token,
        |token| text::datum(token),
    );
    replaced.note(Column::IsActive, &given.is_active, &wanted.is_active, |value| {
        value.into_datum()
    });
    let time = |at: &i64| at.into_datum();
    replaced.note(Column::LastActivity, &given.last_activity, &wanted.last_activity, time);
    replaced.note(Column::CreatedAt, &given.created_at, &wanted.created_at, time);
    replaced.note(Column::ExpiresAt, &given.expires_at, &wanted.expires_at, time);
    replaced.note(Column::EndedAt, &given.ended_at, &wanted.ended_at, time);
    replaced.note(Column::UserKey, &given.user_key, &wanted.user_key, |key| {
        text::datum(key)
    });
    if let Some(datum) = metadata {
        replaced.put(Column::Metadata, Some(datum));
    }
    replaced.apply(row)
}

/// New values of columns, in the form PostgreSQL wants them.
struct Replacements {
    count: usize,
    columns: [i32; COLUMNS],
    values: [pg_sys::Datum; COLUMNS],
    nulls: [bool; COLUMNS],
}

impl Default for Replacements {
    fn default() -> Replacements {
        Replacements {
            count: 0,
            columns: [0; COLUMNS],
            values: [pg_sys::Datum::null(); COLUMNS],
            nulls: [false; COLUMNS],
        }
    }
}

impl Replacements {
    fn note<T: PartialEq>(
        &mut self,
        column: Column,
        given: &Option<T>,
        wanted: &Option<T>,
        datum: impl FnOnce(&T) -> Option<pg_sys::Datum>,
    ) {
        if given != wanted {
            self.put(column, wanted.as_ref().and_then(datum));
        }
    }

    fn put(&mut self, column: Column, value: Option<pg_sys::Datum>) {
        self.columns[self.count] = column as i32;
        self.values[self.count] = value.unwrap_or(pg_sys::Datum::null());
        self.nulls[self.count] = value.is_none();
        self.count += 1;
    }

    fn apply(mut self, row: &TriggerRow) -> TriggerResult {
        let n = self.count;
        if n == 0 {
            return TriggerResult::unchanged(row);
        }
        // SAFETY: as many columns, values and nulls as counted, each of its column's type.
        unsafe { TriggerResult::replaced(row, &mut self.columns[..n], &mut self.values[..n], &mut self.nulls[..n]) }
    }
}
