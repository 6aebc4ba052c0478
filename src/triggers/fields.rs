//! The columns of a row of `user_sessions` as plain values, and which of them a statement sets.

use std::borrow::Cow;

use uuid::Uuid;

use crate::{
    pg::errors,
    rules::{
        presence_id::{integer_of, presence_id_text},
        time::Micros,
        token::Digest,
    },
};

/// A column, by its attribute number. New ones are added behind these, so they stay.
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
}

/// What the rules need to know besides the row.
#[derive(Clone, Copy)]
pub struct WriteContext {
    pub now: Micros,
    /// now() in SQL: when the transaction began.
    pub began: Micros,
    /// `presence.session_lifetime`.
    pub lifetime: Micros,
}

/// The columns that an UPDATE names.
#[derive(Clone, Copy, Debug, Default)]
pub struct ColumnSet(u16);

impl ColumnSet {
    pub fn of(columns: impl IntoIterator<Item = Column>) -> ColumnSet {
        ColumnSet(columns.into_iter().fold(0, |set, column| set | 1 << column as u16))
    }

    pub fn has(self, column: Column) -> bool {
        self.0 & 1 << column as u16 != 0
    }

    /// Whether the statement writes a whole row back, as an ORM's save does, so that most of what it names it does not
    /// mean to change. Nobody means to change these.
    pub fn is_whole_row(self) -> bool {
        use Column::{AuthId, CreatedAt, ExpiresAt, Id, SessionToken, UserId};
        [Id, UserId, AuthId, SessionToken, CreatedAt, ExpiresAt]
            .into_iter()
            .any(|column| self.has(column))
    }
}

/// All columns but `metadata`; none stands for NULL.
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

/// The longest `user_key`, in bytes: far longer than ids are, and short enough for every notification.
const LONGEST_KEY: usize = 512;

impl SessionFields<'_> {
    /// Refuses a key that cannot be stored, and one of another user than `user_id`, both with 22023.
    pub fn check_key(&self) {
        let Some(key) = self.user_key.as_deref() else {
            return;
        };
        if key.is_empty() || key.len() > LONGEST_KEY {
            errors::bad_value(
                "user_key must be 1 to 512 bytes long",
                "",
                "Leave user_key out for a user whose id is a uuid.",
            );
        }
        if self.user_id.is_some_and(|id| id != presence_id_text(key)) {
            errors::bad_value(
                "user_id and user_key name different users",
                "Where a user has a key, the id is presence_id(user_key).",
                "Give one of the two.",
            );
        }
    }

    /// Gives a user known by an integer its key.
    pub fn fill_key(&mut self) {
        if self.user_key.is_none() {
            let integer = self.user_id.and_then(integer_of);
            self.user_key = integer.map(|integer| Cow::Owned(integer.to_string()));
        }
    }

    /// Puts a digest in the place of the token.
    pub fn set_digest(&mut self, digest: Digest) {
        self.session_token = Some(Cow::Owned(digest.to_text()));
    }

    /// Puts its digest in the place of a token; a digest stays one.
    pub fn digest_token(&mut self) {
        if let Some(text) = self.session_token.as_deref()
            && Digest::parse(text).is_none()
        {
            self.set_digest(Digest::of(text));
        }
    }

    /// The digest in `session_token`, or that of the token in it.
    pub fn digest(&self) -> Option<Digest> {
        let text = self.session_token.as_deref()?;
        Some(Digest::parse(text).unwrap_or_else(|| Digest::of(text)))
    }
}
