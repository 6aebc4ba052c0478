//! The tuples of the trigger: read into [`Fields`], and written back where those differ.

use std::borrow::Cow;
use std::num::NonZeroUsize;

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::htup::heap_getattr_raw;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, IntoDatum, PgTrigger, pg_sys, pgrx_resolved_type};
use uuid::Uuid;

use super::fields::{Column, Fields, Set};
use crate::{errors, text};

const COLUMNS: [Column; 11] = [
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

/// A firing of the trigger.
pub struct Event {
    relation: pg_sys::Relation,
    /// The row as it is; none for an INSERT.
    pub old: Option<Row>,
    /// The row as it is to be.
    pub new: Row,
    /// The columns that an UPDATE names.
    pub set: Set,
}

impl Event {
    /// Errors where the function is not called as a trigger BEFORE INSERT OR UPDATE of each row.
    ///
    /// # Safety
    /// `fcinfo` is the frame of a call by PostgreSQL that lasts as long as what is returned.
    pub unsafe fn of(fcinfo: pg_sys::FunctionCallInfo) -> Event {
        // SAFETY: the caller's; the constructor checks that it is a trigger's call.
        let Ok(trigger) = (unsafe { PgTrigger::from_fcinfo(&*fcinfo) }) else {
            errors::not_permitted();
        };
        let (event, data) = (trigger.event(), trigger.trigger_data());
        let is_ours = event.fired_before()
            && event.fired_for_row()
            && (event.fired_by_insert() || event.fired_by_update());
        if !is_ours {
            errors::not_permitted();
        }
        // SAFETY: the relation is open for as long as the trigger runs.
        let descriptor = unsafe { (*data.tg_relation).rd_att };
        let row = |tuple| Row { tuple, descriptor };
        if event.fired_by_update() {
            Event {
                relation: data.tg_relation,
                old: Some(row(data.tg_trigtuple)),
                new: row(data.tg_newtuple),
                set: columns_set(data),
            }
        } else {
            Event {
                relation: data.tg_relation,
                old: None,
                new: row(data.tg_trigtuple),
                set: Set::default(),
            }
        }
    }

    /// The table that is written.
    pub fn table(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open for as long as the trigger runs.
        unsafe { (*self.relation).rd_id }
    }

    /// The row as the statement gave it.
    pub fn as_given(&self) -> Corrected {
        Corrected(self.new.tuple)
    }

    /// The row with every field that differs from what was given put in its place.
    pub fn correct(
        &self,
        given: &Fields,
        fields: &Fields,
        metadata: Option<pg_sys::Datum>,
    ) -> Corrected {
        let text_datum = |text: &Cow<'_, str>| text::datum(text);
        let mut changes = Changes::none();
        changes.note(Column::Id, uuid_datum, &given.id, &fields.id);
        changes.note(Column::UserId, uuid_datum, &given.user_id, &fields.user_id);
        changes.note(Column::AuthId, uuid_datum, &given.auth_id, &fields.auth_id);
        changes.note(
            Column::SessionToken,
            text_datum,
            &given.session_token,
            &fields.session_token,
        );
        changes.note(
            Column::IsActive,
            |value| value.into_datum(),
            &given.is_active,
            &fields.is_active,
        );
        changes.note(
            Column::LastActivity,
            |at| at.into_datum(),
            &given.last_activity,
            &fields.last_activity,
        );
        changes.note(
            Column::CreatedAt,
            |at| at.into_datum(),
            &given.created_at,
            &fields.created_at,
        );
        changes.note(
            Column::ExpiresAt,
            |at| at.into_datum(),
            &given.expires_at,
            &fields.expires_at,
        );
        changes.note(
            Column::EndedAt,
            |at| at.into_datum(),
            &given.ended_at,
            &fields.ended_at,
        );
        changes.note(
            Column::UserKey,
            text_datum,
            &given.user_key,
            &fields.user_key,
        );
        if let Some(datum) = metadata {
            changes.put(Column::Metadata, Some(datum));
        }
        changes.apply(&self.new)
    }
}

/// A row as the trigger gets it.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    /// All columns but `metadata`. A key that is carried on from `before` is left out where it is no text that can be
    /// read: it stays as it is.
    pub fn fields(&self, before: Option<&Row>) -> Fields<'_> {
        Fields {
            id: self.uuid(Column::Id as usize),
            user_id: self.uuid(Column::UserId as usize),
            auth_id: self.uuid(Column::AuthId as usize),
            session_token: self
                .bytes(Column::SessionToken)
                .map(text::decode)
                .map(Cow::Borrowed),
            is_active: self.get(Column::IsActive as usize),
            last_activity: self.get(Column::LastActivity as usize),
            created_at: self.get(Column::CreatedAt as usize),
            expires_at: self.get(Column::ExpiresAt as usize),
            ended_at: self.get(Column::EndedAt as usize),
            user_key: self.key(before).map(Cow::Borrowed),
        }
    }

    /// The value of `metadata`; none for NULL.
    pub fn metadata(&self) -> Option<pg_sys::Datum> {
        self.datum(Column::Metadata as usize)
    }

    /// The value of a uuid column, by its attribute number; none for NULL.
    pub fn uuid(&self, column: usize) -> Option<Uuid> {
        self.get::<pgrx::Uuid>(column)
            .map(|id| Uuid::from_bytes(*id))
    }

    fn key(&self, before: Option<&Row>) -> Option<&str> {
        let key = self.bytes(Column::UserKey)?;
        if before.is_some_and(|before| before.bytes(Column::UserKey) == Some(key)) {
            text::try_decode(key)
        } else {
            Some(text::decode(key))
        }
    }

    /// A text in the encoding of the database.
    fn bytes(&self, column: Column) -> Option<&[u8]> {
        // SAFETY: the column is a text, fixed by the table's definition, and the tuple outlives the trigger's call.
        self.datum(column as usize)
            .map(|datum| unsafe { text::bytes(datum) })
    }

    fn get<T: FromDatum>(&self, column: usize) -> Option<T> {
        // SAFETY: T is the column's type, fixed by the table's definition.
        self.datum(column)
            .and_then(|datum| unsafe { T::from_datum(datum, false) })
    }

    fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        let number = NonZeroUsize::new(column)?;
        // SAFETY: tuple and descriptor are the trigger's, and belong together.
        unsafe { heap_getattr_raw(self.tuple, number, self.descriptor) }
    }
}

/// New values of columns, in the form PostgreSQL wants them.
struct Changes {
    count: usize,
    columns: [i32; COLUMNS.len()],
    values: [pg_sys::Datum; COLUMNS.len()],
    nulls: [bool; COLUMNS.len()],
}

impl Changes {
    fn none() -> Changes {
        Changes {
            count: 0,
            columns: [0; COLUMNS.len()],
            values: [pg_sys::Datum::null(); COLUMNS.len()],
            nulls: [false; COLUMNS.len()],
        }
    }

    fn note<T: PartialEq>(
        &mut self,
        column: Column,
        datum: impl FnOnce(&T) -> Option<pg_sys::Datum>,
        given: &Option<T>,
        wanted: &Option<T>,
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

    fn apply(mut self, row: &Row) -> Corrected {
        if self.count == 0 {
            return Corrected(row.tuple);
        }
        // SAFETY: as many columns, values and nulls as counted, each of its column's type; the new tuple lives in the
        // current memory context, which PostgreSQL resets after it has taken it.
        Corrected(unsafe {
            pg_sys::heap_modify_tuple_by_cols(
                row.tuple,
                row.descriptor,
                self.count as i32,
                self.columns.as_mut_ptr(),
                self.values.as_mut_ptr(),
                self.nulls.as_mut_ptr(),
            )
        })
    }
}

/// The tuple that goes on to be written.
pub struct Corrected(pg_sys::HeapTuple);

impl Corrected {
    /// No row: the statement goes on without it.
    pub fn nothing() -> Corrected {
        Corrected(std::ptr::null_mut())
    }
}

// SAFETY: a trigger returns the tuple's address in the place of a value.
unsafe impl BoxRet for Corrected {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: the tuple lives until PostgreSQL has taken it: it is its own, or in the trigger's memory context.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.0)) }
    }
}

// SAFETY: only ever the result of a trigger function.
unsafe impl SqlTranslatable for Corrected {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Corrected);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
        Err(ArgumentError::NotValidAsArgument("Corrected"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::As("trigger")));
}

fn columns_set(data: &pg_sys::TriggerData) -> Set {
    let named = COLUMNS.into_iter().filter(|&column| {
        let member = column as i32 - pg_sys::FirstLowInvalidHeapAttributeNumber;
        // SAFETY: the set is PostgreSQL's, or null for an empty one.
        unsafe { pg_sys::bms_is_member(member, data.tg_updatedcols) }
    });
    Set::of(named)
}

fn uuid_datum(id: &Uuid) -> Option<pg_sys::Datum> {
    pgrx::Uuid::from_bytes(*id.as_bytes()).into_datum()
}
