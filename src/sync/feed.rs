//! The trigger that feeds the roster: AFTER each row written and each TRUNCATE, ALWAYS.
//!
//! It never raises for what a row says: an error here would stop a replication for good. It runs while the row's
//! lock is held, which makes its stamps follow the order of the commits.

use std::num::NonZeroUsize;

use pgrx::{FromDatum, heap_tuple::PgHeapTuple, htup::heap_getattr_raw, pg_sys, prelude::*};
use uuid::Uuid;

use super::pending::{self, Op};
use crate::{
    core::token::Digest,
    errors, installed,
    roster::{self, Image, Space, What, Write},
    store::session::is_keyed,
    text,
};

/// Attribute numbers of `user_sessions`. New columns are added behind these, so they stay.
mod column {
    pub const ID: usize = 1;
    pub const USER_ID: usize = 2;
    pub const AUTH_ID: usize = 3;
    pub const SESSION_TOKEN: usize = 4;
    pub const IS_ACTIVE: usize = 5;
    pub const LAST_ACTIVITY: usize = 6;
    pub const EXPIRES_AT: usize = 8;
    pub const ENDED_AT: usize = 10;
    pub const USER_KEY: usize = 11;
}

/// A row as a trigger gets it.
struct Row {
    tuple: *mut pg_sys::HeapTupleData,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        let number = NonZeroUsize::new(column)?;
        // SAFETY: tuple and descriptor are the trigger's.
        unsafe { heap_getattr_raw(self.tuple, number, self.descriptor) }
    }

    fn get<T: FromDatum>(&self, column: usize) -> Option<T> {
        let datum = self.datum(column)?;
        // SAFETY: T is the column's type, fixed by the table's definition.
        unsafe { T::from_datum(datum, false) }
    }

    /// The token, where it is a digest as it should be.
    fn digest(&self) -> Option<Digest> {
        let datum = self.datum(column::SESSION_TOKEN)?;
        // SAFETY: a text, fixed by the table's definition, of a tuple that outlives the call.
        let token = unsafe { text::bytes(datum) };
        Digest::parse(str::from_utf8(token).ok()?)
    }

    fn uuid(&self, column: usize) -> Option<Uuid> {
        self.get::<pgrx::Uuid>(column)
            .map(|id| Uuid::from_bytes(*id.as_bytes()))
    }

    fn image(&self) -> Option<Image> {
        let user_id = self.uuid(column::USER_ID)?;
        Some(Image {
            id: self.uuid(column::ID)?,
            user_id,
            auth_id: self.uuid(column::AUTH_ID)?,
            digest: self.digest()?,
            is_active: self.get(column::IS_ACTIVE)?,
            last_activity: self.get(column::LAST_ACTIVITY)?,
            expires_at: self.get(column::EXPIRES_AT)?,
            ended: self.get::<i64>(column::ENDED_AT).is_some(),
            keyed: is_keyed(user_id, self.datum(column::USER_KEY).is_some()),
        })
    }
}

/// Feeds the roster with what was written to user_sessions, at commit.
#[pg_trigger]
fn presence_feed<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgTriggerError> {
    let result: Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>> = None;
    if super::is_ignored() {
        return Ok(result);
    }
    // Without a roster the table is all there is; it will be loaded when there is one.
    let Some(space) = roster::try_space() else {
        return Ok(result);
    };
    if trigger.relid()? != installed::get().sessions {
        errors::not_permitted();
    }
    let event = trigger.event();
    if event.fired_by_truncate() {
        if !pending::make_room() {
            errors::out_of_memory();
        }
        pending::push(space, Op::Truncate(roster::take_stamp()));
        return Ok(result);
    }
    let data = trigger.trigger_data();
    // SAFETY: the relation is open for as long as the trigger runs.
    let descriptor = unsafe { (*data.tg_relation).rd_att };
    let written = Row {
        tuple: data.tg_trigtuple,
        descriptor,
    };
    if event.fired_by_update() {
        let (old, new) = (
            written,
            Row {
                tuple: data.tg_newtuple,
                descriptor,
            },
        );
        if let (Some(old), Some(new)) = (old.image(), new.image()) {
            updated(space, &old, new);
        }
    } else if let Some(image) = written.image() {
        let deleted = event.fired_by_delete();
        let what = What {
            deleted,
            beat: false,
            activated: !deleted,
            deactivated: false,
        };
        record(space, image, what);
    }
    Ok(result)
}

fn updated(space: Space, old: &Image, new: Image) {
    if old.id != new.id {
        // Another id is another session: the old one is gone.
        let gone = What {
            deleted: true,
            beat: false,
            activated: false,
            deactivated: false,
        };
        record(space, *old, gone);
    }
    let what = What {
        deleted: false,
        beat: new.last_activity > old.last_activity,
        activated: new.is_active && !old.is_active,
        deactivated: old.is_active && !new.is_active,
    };
    record(space, new, what);
}

/// Notes one write. Everything that can fail comes before the stamp, which nothing may follow but the entry itself.
fn record(space: Space, image: Image, what: What) {
    if !pending::make_room() {
        errors::out_of_memory();
    }
    let reserved = match space.reserve(&image) {
        Ok(reserved) => Some(reserved),
        Err(roster::Full) => {
            if !what.deleted && !image.ended {
                space.set_overflow();
            }
            None
        }
    };
    let stamp = roster::take_stamp();
    pending::push(space, Op::Row(Write { image, stamp, what }, reserved));
}
