//! Rows of `user_sessions` as a trigger gets them: the only place that knows where a column is.

use std::{borrow::Cow, num::NonZeroUsize};

use pgrx::{FromDatum, htup::heap_getattr_raw, pg_sys};
use uuid::Uuid;

use super::fields::{Column, SessionFields};
use crate::{
    pg::{compat, errors, text},
    roster::RowImage,
    rules::{presence_id::is_keyed, time::Micros, token::Digest},
};

/// A row of the table that the trigger is on.
pub struct TriggerRow {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl TriggerRow {
    /// # Safety
    /// The tuple belongs to the descriptor, and both stay as they are for as long as the trigger runs.
    pub unsafe fn new(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> TriggerRow {
        TriggerRow { tuple, descriptor }
    }

    /// The tuple, as PostgreSQL passed it.
    pub fn tuple(&self) -> pg_sys::HeapTuple {
        self.tuple
    }

    /// What the columns of the tuple are.
    pub fn descriptor(&self) -> pg_sys::TupleDesc {
        self.descriptor
    }

    /// All columns but `metadata`. A key that is carried over from `before` is left out where it cannot be read as text:
    /// it stays as it is.
    pub fn fields(&self, before: Option<&TriggerRow>) -> SessionFields<'_> {
        SessionFields {
            id: self.uuid(Column::Id as usize),
            user_id: self.uuid(Column::UserId as usize),
            auth_id: self.uuid(Column::AuthId as usize),
            session_token: self.bytes(Column::SessionToken).map(text::decode).map(Cow::Borrowed),
            is_active: self.bool(Column::IsActive),
            last_activity: self.time(Column::LastActivity),
            created_at: self.time(Column::CreatedAt),
            expires_at: self.time(Column::ExpiresAt),
            ended_at: self.time(Column::EndedAt),
            user_key: self.key(before).map(Cow::Borrowed),
        }
    }

    /// What the roster needs of the row; `None` where a value is missing or is not what the extension writes.
    pub fn image(&self) -> Option<RowImage> {
        let user_id = self.uuid(Column::UserId as usize)?;
        Some(RowImage {
            id: self.uuid(Column::Id as usize)?,
            user_id,
            auth_id: self.uuid(Column::AuthId as usize)?,
            digest: Digest::parse(str::from_utf8(self.bytes(Column::SessionToken)?).ok()?)?,
            is_active: self.bool(Column::IsActive)?,
            last_activity: self.time(Column::LastActivity)?,
            expires_at: self.time(Column::ExpiresAt)?,
            ended: self.time(Column::EndedAt).is_some(),
            keyed: is_keyed(user_id, self.bytes(Column::UserKey).is_some()),
        })
    }

    /// The value of `metadata`; `None` for NULL.
    pub fn metadata(&self) -> Option<pg_sys::Datum> {
        self.datum(Column::Metadata as usize, pg_sys::JSONBOID)
    }

    /// The value of a uuid column, by its attribute number; `None` for NULL.
    pub fn uuid(&self, column: usize) -> Option<Uuid> {
        // SAFETY: a uuid, as checked.
        let id = unsafe { pgrx::Uuid::from_datum(self.datum(column, pg_sys::UUIDOID)?, false) };
        id.map(|id| Uuid::from_bytes(*id))
    }

    fn key(&self, before: Option<&TriggerRow>) -> Option<&str> {
        let key = self.bytes(Column::UserKey)?;
        if before.is_some_and(|before| before.bytes(Column::UserKey) == Some(key)) {
            text::try_decode(key)
        } else {
            Some(text::decode(key))
        }
    }

    /// A text in the encoding of the database.
    fn bytes(&self, column: Column) -> Option<&[u8]> {
        let datum = self.datum(column as usize, pg_sys::TEXTOID)?;
        // SAFETY: a text, as checked; the tuple outlives the trigger's call.
        Some(unsafe { text::bytes(datum) })
    }

    fn time(&self, column: Column) -> Option<Micros> {
        self.datum(column as usize, pg_sys::TIMESTAMPTZOID)
            .map(|datum| datum.value() as Micros)
    }

    fn bool(&self, column: Column) -> Option<bool> {
        // SAFETY: a boolean, as checked.
        unsafe { bool::from_datum(self.datum(column as usize, pg_sys::BOOLOID)?, false) }
    }

    /// The value of a column that has to be of this type; `None` for NULL. Errors: 55000 where the table was changed and it
    /// is not.
    fn datum(&self, column: usize, expected: pg_sys::Oid) -> Option<pg_sys::Datum> {
        // SAFETY: tuple and descriptor are the trigger's, and belong together.
        unsafe {
            if compat::column_type(self.descriptor, column) != Some(expected) {
                errors::damaged_install();
            }
            heap_getattr_raw(self.tuple, NonZeroUsize::new(column)?, self.descriptor)
        }
    }
}
