//! The columns of a row of `declared_statuses`.

use std::ffi::CStr;

use uuid::Uuid;

use super::row::TriggerRow;
use crate::{
    pg::compat,
    rules::{
        hiding::{Hiding, VISIBILITY},
        time::Micros,
    },
};

/// A column, by its attribute number when created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeclaredColumn {
    UserId = 1,
    Source,
    Status,
    StatusText,
    Emoji,
    SetAt,
    ExpiresAt,
    ByUser,
    LastSeen,
    ShownAt,
}

impl DeclaredColumn {
    fn name(self) -> &'static CStr {
        match self {
            DeclaredColumn::UserId => c"user_id",
            DeclaredColumn::Source => c"source",
            DeclaredColumn::Status => c"status",
            DeclaredColumn::StatusText => c"status_text",
            DeclaredColumn::Emoji => c"emoji",
            DeclaredColumn::SetAt => c"set_at",
            DeclaredColumn::ExpiresAt => c"expires_at",
            DeclaredColumn::ByUser => c"by_user",
            DeclaredColumn::LastSeen => c"last_seen",
            DeclaredColumn::ShownAt => c"shown_at",
        }
    }

    /// Returns the attribute number that the column has in a row.
    pub fn number_in(self, row: &TriggerRow) -> usize {
        // SAFETY: the descriptor of a row is valid for as long as the row is.
        unsafe { compat::column_number(row.descriptor(), self as usize, self.name()) }
    }
}

/// The values of a row; texts are in the encoding of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredFields<'a> {
    pub user_id: Option<Uuid>,
    pub source: Option<&'a [u8]>,
    pub status: Option<&'a [u8]>,
    pub status_text: Option<&'a [u8]>,
    pub emoji: Option<&'a [u8]>,
    pub set_at: Option<Micros>,
    pub expires_at: Option<Micros>,
    pub by_user: bool,
    pub last_seen: Option<Micros>,
    pub shown_at: Option<Micros>,
}

impl<'a> DeclaredFields<'a> {
    /// Reads a row of the table. Errors: 55000 where a column is not of the type that it was created with.
    pub fn of(row: &'a TriggerRow) -> DeclaredFields<'a> {
        let text = |column: DeclaredColumn| row.text(column.number_in(row));
        let instant = |column: DeclaredColumn| row.instant(column.number_in(row));
        DeclaredFields {
            user_id: user_of(row),
            source: text(DeclaredColumn::Source),
            status: text(DeclaredColumn::Status),
            status_text: text(DeclaredColumn::StatusText),
            emoji: text(DeclaredColumn::Emoji),
            set_at: instant(DeclaredColumn::SetAt),
            expires_at: instant(DeclaredColumn::ExpiresAt),
            by_user: row.boolean(DeclaredColumn::ByUser.number_in(row)).unwrap_or(false),
            last_seen: instant(DeclaredColumn::LastSeen),
            shown_at: instant(DeclaredColumn::ShownAt),
        }
    }

    /// Returns whether two rows declare the same, for however long.
    pub fn says_the_same(&self, other: &DeclaredFields) -> bool {
        (self.user_id, self.source, self.status, self.status_text, self.emoji)
            == (
                other.user_id,
                other.source,
                other.status,
                other.status_text,
                other.emoji,
            )
    }

    /// Returns whether it is of the source that hides users.
    pub fn is_hiding(&self) -> bool {
        self.source == Some(VISIBILITY.as_bytes())
    }

    /// Returns what hides its user, or has hidden it; `None` of another source.
    pub fn hiding(&self) -> Option<Hiding> {
        self.is_hiding().then_some(Hiding {
            expires_at: self.expires_at,
            shown_at: self.shown_at,
            by_user: self.by_user,
            last_seen: self.last_seen,
        })
    }

    /// Returns whether it hides its user at `now`.
    pub fn hides(&self, now: Micros) -> bool {
        self.hiding().is_some_and(|hiding| hiding.hides(now))
    }

    /// Returns whether it is valid at `now`.
    pub fn is_valid(&self, now: Micros) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// Returns whether a row is of the source that hides users.
pub fn hides(row: &TriggerRow) -> bool {
    row.text(DeclaredColumn::Source.number_in(row)) == Some(VISIBILITY.as_bytes())
}

/// Returns the user of a row; `None` for NULL.
pub fn user_of(row: &TriggerRow) -> Option<Uuid> {
    row.uuid(DeclaredColumn::UserId.number_in(row))
}
