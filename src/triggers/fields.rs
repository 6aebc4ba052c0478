//! The columns of a row of `user_sessions` as Rust values, and the set of those that a statement sets.

use std::{borrow::Cow, ffi::CStr};

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    pg::{compat, errors},
    rules::{
        presence_id::{integer_of, presence_id_text},
        time::Micros,
        token::Digest,
    },
};

/// A column, by its attribute number when created. New columns are added at the end, so these numbers do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Column {
    Id = 1,
    UserId,
    AuthId,
    SessionToken,
    IsActive,
    LastActivity,
    CreatedAt,
    ExpiresAt,
    Metadata,
    EndedAt,
    UserKey,
}

impl Column {
    pub const ALL: [Column; 11] = [
        Column::Id,
        Column::UserId,
        Column::AuthId,
        Column::SessionToken,
        Column::IsActive,
        Column::LastActivity,
        Column::CreatedAt,
        Column::ExpiresAt,
        Column::Metadata,
        Column::EndedAt,
        Column::UserKey,
    ];

    fn name(self) -> &'static CStr {
        match self {
            Column::Id => c"id",
            Column::UserId => c"user_id",
            Column::AuthId => c"auth_id",
            Column::SessionToken => c"session_token",
            Column::IsActive => c"is_active",
            Column::LastActivity => c"last_activity",
            Column::CreatedAt => c"created_at",
            Column::ExpiresAt => c"expires_at",
            Column::Metadata => c"metadata",
            Column::EndedAt => c"ended_at",
            Column::UserKey => c"user_key",
        }
    }

    /// Returns the attribute number that the column has. Another than its own is that of a column that was dropped and
    /// added again. One that was renamed keeps its number.
    ///
    /// # Safety
    /// `descriptor` describes rows of `user_sessions`.
    pub unsafe fn number(self, descriptor: pg_sys::TupleDesc) -> usize {
        // SAFETY: as the caller promises.
        unsafe { compat::column_number(descriptor, self as usize, self.name()) }
    }
}

/// The times that a row is corrected by, in microseconds.
#[derive(Clone, Copy)]
pub struct WriteContext {
    pub now: Micros,
    /// `now()` in SQL.
    pub transaction_start: Micros,
    /// `presence.session_lifetime`.
    pub lifetime: Micros,
}

impl WriteContext {
    /// Returns the later of the activity that a row has and `at`. One in the future is of before the clock was set back.
    pub fn later_activity(&self, known: Option<Micros>, at: Option<Micros>) -> Option<Micros> {
        known.map(|known| known.min(self.now)).max(at)
    }
}

/// The columns that an UPDATE sets.
#[derive(Clone, Copy, Debug, Default)]
pub struct ColumnSet(u16);

impl ColumnSet {
    pub fn of(columns: impl IntoIterator<Item = Column>) -> ColumnSet {
        ColumnSet(columns.into_iter().fold(0, |set, column| set | 1 << column as u16))
    }

    pub fn has(self, column: Column) -> bool {
        self.0 & 1 << column as u16 != 0
    }

    /// Returns whether the statement writes back a whole row, as ORMs do when they save a record, and so sets columns
    /// that it does not mean to change. These are columns that no statement means to change.
    pub fn is_whole_row(self) -> bool {
        use Column::{AuthId, CreatedAt, ExpiresAt, Id, SessionToken, UserId};
        [Id, UserId, AuthId, SessionToken, CreatedAt, ExpiresAt]
            .into_iter()
            .any(|column| self.has(column))
    }
}

/// All columns but `metadata`; `None` is NULL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFields<'a> {
    pub id: Option<Uuid>,
    pub user_id: Option<Uuid>,
    pub auth_id: Option<Uuid>,
    pub session_token: Option<Cow<'a, str>>,
    pub is_active: Option<bool>,
    pub last_activity: Option<Micros>,
    pub created_at: Option<Micros>,
    pub expires_at: Option<Micros>,
    pub ended_at: Option<Micros>,
    pub user_key: Option<Cow<'a, str>>,
}

/// The maximum length of `user_key`, in bytes: more than ids need, and short enough for any notification.
const MAX_KEY_BYTES: usize = 512;

impl SessionFields<'_> {
    /// Checks `user_key`. Errors: 22023 where it is empty or too long, or names another user than `user_id`.
    pub fn check_key(&self) {
        let Some(key) = self.user_key.as_deref() else {
            return;
        };
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            errors::bad_value(
                "user_key must be 1 to 512 bytes long",
                "",
                "Omit user_key for a user whose id is a uuid.",
            );
        }
        if self.user_id.is_some_and(|id| id != presence_id_text(key)) {
            errors::bad_value(
                "user_id and user_key name different users",
                "The id of a user with a key is presence_id(user_key).",
                "Set only one of them.",
            );
        }
    }

    /// Sets the key of a user whose id is made from an integer.
    pub fn fill_key(&mut self) {
        if self.user_key.is_none() {
            let integer = self.user_id.and_then(integer_of);
            self.user_key = integer.map(|integer| Cow::Owned(integer.to_string()));
        }
    }

    /// Sets `session_token` to a digest.
    pub fn set_digest(&mut self, digest: Digest) {
        self.session_token = Some(Cow::Owned(digest.to_text()));
    }

    /// Replaces a token in `session_token` by its digest; leaves a digest as it is.
    pub fn digest_token(&mut self) {
        if let Some(text) = self.session_token.as_deref()
            && Digest::parse(text).is_none()
        {
            self.set_digest(Digest::of(text));
        }
    }

    /// Returns the digest in `session_token`, or the digest of the token in it.
    pub fn digest(&self) -> Option<Digest> {
        let text = self.session_token.as_deref()?;
        Some(Digest::parse(text).unwrap_or_else(|| Digest::of(text)))
    }
}
