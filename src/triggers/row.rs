//! The rows that PostgreSQL passes to a trigger on one of our tables: the only place that reads their columns.

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
    /// The tuple is described by the descriptor, and both are valid for as long as the trigger runs.
    pub unsafe fn new(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> TriggerRow {
        TriggerRow { tuple, descriptor }
    }

    /// Returns the tuple as PostgreSQL passed it.
    pub fn tuple(&self) -> pg_sys::HeapTuple {
        self.tuple
    }

    /// Returns the descriptor of the tuple.
    pub fn descriptor(&self) -> pg_sys::TupleDesc {
        self.descriptor
    }

    /// Returns all columns but `metadata`. A `user_key` that an UPDATE keeps from the row `before` it, and that cannot
    /// be converted to UTF-8, is left out and so never changed. Errors: 22021 or 22P05 where another text cannot be
    /// converted.
    pub fn fields(&self, before: Option<&TriggerRow>) -> SessionFields<'_> {
        SessionFields {
            id: self.uuid(self.number(Column::Id)),
            user_id: self.uuid(self.number(Column::UserId)),
            auth_id: self.uuid(self.number(Column::AuthId)),
            session_token: self.bytes(Column::SessionToken).map(text::decode).map(Cow::Borrowed),
            is_active: self.bool(Column::IsActive),
            last_activity: self.time(Column::LastActivity),
            created_at: self.time(Column::CreatedAt),
            expires_at: self.time(Column::ExpiresAt),
            ended_at: self.time(Column::EndedAt),
            user_key: self.key(before).map(Cow::Borrowed),
        }
    }

    /// Returns what the roster keeps of the row; `None` where a value is NULL or `session_token` is not a digest.
    pub fn image(&self) -> Option<RowImage> {
        let user_id = self.uuid(self.number(Column::UserId))?;
        Some(RowImage {
            id: self.uuid(self.number(Column::Id))?,
            user_id,
            auth_id: self.uuid(self.number(Column::AuthId))?,
            digest: Digest::parse(str::from_utf8(self.bytes(Column::SessionToken)?).ok()?)?,
            is_active: self.bool(Column::IsActive)?,
            last_activity: self.time(Column::LastActivity)?,
            expires_at: self.time(Column::ExpiresAt)?,
            ended: self.time(Column::EndedAt).is_some(),
            keyed: is_keyed(user_id, self.bytes(Column::UserKey).is_some()),
            idle_since: None,
        })
    }

    /// Returns the number of the command that wrote this version of the row, in a running transaction's own write.
    pub fn written_by(&self) -> pg_sys::CommandId {
        // SAFETY: an AFTER trigger gets the tuple as it is in the table, header included.
        unsafe {
            let header = (*self.tuple).t_data;
            match u32::from((*header).t_infomask) & pg_sys::HEAP_COMBOCID {
                0 => (*header).t_choice.t_heap.t_field3.t_cid,
                _ => pg_sys::HeapTupleHeaderGetCmin(header),
            }
        }
    }

    /// Returns the number of the command that deleted this version of the row, in a running transaction's own write.
    pub fn deleted_by(&self) -> pg_sys::CommandId {
        // SAFETY: as in `written_by`.
        unsafe {
            let header = (*self.tuple).t_data;
            match u32::from((*header).t_infomask) & pg_sys::HEAP_COMBOCID {
                0 => (*header).t_choice.t_heap.t_field3.t_cid,
                _ => pg_sys::HeapTupleHeaderGetCmax(header),
            }
        }
    }

    /// Returns the value of `metadata`; `None` for NULL.
    pub fn metadata(&self) -> Option<pg_sys::Datum> {
        self.datum(self.number(Column::Metadata), pg_sys::JSONBOID)
    }

    /// Returns the value of a uuid column, by its attribute number; `None` for NULL.
    pub fn uuid(&self, column: usize) -> Option<Uuid> {
        // SAFETY: a uuid, as checked.
        let id = unsafe { pgrx::Uuid::from_datum(self.datum(column, pg_sys::UUIDOID)?, false) };
        id.map(|id| Uuid::from_bytes(*id))
    }

    /// Returns the value of a text column, by its attribute number, in the encoding of the database; `None` for NULL.
    pub fn text(&self, column: usize) -> Option<&[u8]> {
        let datum = self.datum(column, pg_sys::TEXTOID)?;
        // SAFETY: a text, as checked; the tuple is valid for as long as the trigger runs.
        Some(unsafe { text::bytes(datum) })
    }

    /// Returns the value of a timestamptz column, by its attribute number; `None` for NULL.
    pub fn instant(&self, column: usize) -> Option<Micros> {
        self.datum(column, pg_sys::TIMESTAMPTZOID)
            .map(|datum| datum.value() as Micros)
    }

    /// Returns the value of a boolean column, by its attribute number; `None` for NULL.
    pub fn boolean(&self, column: usize) -> Option<bool> {
        // SAFETY: a boolean, as checked.
        unsafe { bool::from_datum(self.datum(column, pg_sys::BOOLOID)?, false) }
    }

    fn key(&self, before: Option<&TriggerRow>) -> Option<&str> {
        let key = self.bytes(Column::UserKey)?;
        if before.is_some_and(|before| before.bytes(Column::UserKey) == Some(key)) {
            text::try_decode(key)
        } else {
            Some(text::decode(key))
        }
    }

    /// Returns a text in the encoding of the database.
    fn bytes(&self, column: Column) -> Option<&[u8]> {
        self.text(self.number(column))
    }

    fn time(&self, column: Column) -> Option<Micros> {
        self.instant(self.number(column))
    }

    fn bool(&self, column: Column) -> Option<bool> {
        self.boolean(self.number(column))
    }

    /// Returns the attribute number of a column of `user_sessions`.
    pub fn number(&self, column: Column) -> usize {
        // SAFETY: the descriptor is that of `user_sessions`, or checked column by column.
        unsafe { column.number(self.descriptor) }
    }

    /// Returns the value of a column; `None` for NULL. Errors: 55000 where the column is not of the expected type, as
    /// the table was changed.
    fn datum(&self, column: usize, expected: pg_sys::Oid) -> Option<pg_sys::Datum> {
        // SAFETY: the tuple is described by the descriptor, as `new` requires.
        unsafe {
            if compat::column_type(self.descriptor, column) != Some(expected) {
                errors::damaged_install();
            }
            heap_getattr_raw(self.tuple, NonZeroUsize::new(column)?, self.descriptor)
        }
    }
}
