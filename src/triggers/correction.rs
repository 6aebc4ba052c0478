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

/// Returns the row with each field of `corrected` that differs from `submitted`, and with `metadata` if there is one.
pub fn correct(
    row: &TriggerRow,
    submitted: &SessionFields,
    corrected: &SessionFields,
    metadata: Option<pg_sys::Datum>,
) -> TriggerResult {
    let mut replacements = Replacements::default();
    let uuid = |id: &Uuid| pgrx::Uuid::from_bytes(*id.as_bytes()).into_datum();
    replacements.replace_if_changed(Column::Id, &submitted.id, &corrected.id, uuid);
    replacements.replace_if_changed(Column::UserId, &submitted.user_id, &corrected.user_id, uuid);
    replacements.replace_if_changed(Column::AuthId, &submitted.auth_id, &corrected.auth_id, uuid);
    replacements.replace_if_changed(
        Column::SessionToken,
        &submitted.session_token,
        &corrected.session_token,
        |token| text::datum(token),
    );
    replacements.replace_if_changed(Column::IsActive, &submitted.is_active, &corrected.is_active, |value| {
        value.into_datum()
    });
    let time = |at: &i64| at.into_datum();
    replacements.replace_if_changed(
        Column::LastActivity,
        &submitted.last_activity,
        &corrected.last_activity,
        time,
    );
    replacements.replace_if_changed(Column::CreatedAt, &submitted.created_at, &corrected.created_at, time);
    replacements.replace_if_changed(Column::ExpiresAt, &submitted.expires_at, &corrected.expires_at, time);
    replacements.replace_if_changed(Column::EndedAt, &submitted.ended_at, &corrected.ended_at, time);
    replacements.replace_if_changed(Column::UserKey, &submitted.user_key, &corrected.user_key, |key| {
        text::datum(key)
    });
    if let Some(datum) = metadata {
        replacements.replace(Column::Metadata, Some(datum));
    }
    replacements.into_result(row)
}

/// New values of the first `count` of `columns`.
struct Replacements {
    count: usize,
    columns: [Column; COLUMNS],
    values: [pg_sys::Datum; COLUMNS],
    nulls: [bool; COLUMNS],
}

impl Default for Replacements {
    fn default() -> Replacements {
        Replacements {
            count: 0,
            columns: Column::ALL,
            values: [pg_sys::Datum::null(); COLUMNS],
            nulls: [false; COLUMNS],
        }
    }
}

impl Replacements {
    fn replace_if_changed<T: PartialEq>(
        &mut self,
        column: Column,
        submitted: &Option<T>,
        corrected: &Option<T>,
        datum: impl FnOnce(&T) -> Option<pg_sys::Datum>,
    ) {
        if submitted != corrected {
            self.replace(column, corrected.as_ref().and_then(datum));
        }
    }

    fn replace(&mut self, column: Column, value: Option<pg_sys::Datum>) {
        self.columns[self.count] = column;
        self.values[self.count] = value.unwrap_or(pg_sys::Datum::null());
        self.nulls[self.count] = value.is_none();
        self.count += 1;
    }

    fn into_result(mut self, row: &TriggerRow) -> TriggerResult {
        let n = self.count;
        if n == 0 {
            return TriggerResult::unchanged(row);
        }
        let mut columns = self.columns.map(|column| row.number(column) as i32);
        // SAFETY: the first `n` columns, values and nulls are set, and each value is of its column's type.
        unsafe { TriggerResult::replaced(row, &mut columns[..n], &mut self.values[..n], &mut self.nulls[..n]) }
    }
}
