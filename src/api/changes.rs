//! The feed: its cursor, and the changes after one.
//!
//! Both functions use the snapshot of the calling statement, so that a cursor is never ahead of the rows of
//! `user_presence` that are read after it.

use pgrx::{default, pg_extern, pg_sys};

use super::{
    caller::require_preload,
    result::{Composite, ResultSet, ToRow},
};
use crate::{
    pg::{errors, text::Text},
    store::{
        feed_state::FeedState,
        statement::{Snapshot, Statement},
        value::Value,
    },
};

thread_local! {
    static READ_STATE: Statement = const { Statement::new(
        |s| format!("SELECT epoch, seq, oldest_seq FROM {s}._feed_state ORDER BY seq DESC LIMIT 1"),
        &[],
    ) };
    static READ_CHANGES: Statement = const { Statement::new(
        |s| format!("SELECT * FROM {s}.presence_changes WHERE seq > $1 ORDER BY seq LIMIT $2"),
        &[pg_sys::INT8OID, pg_sys::INT8OID],
    ) };
}

/// Returns the state of the feed as the calling statement sees it; `None` where the worker has not yet written it.
/// Errors: 55000 where the library is not preloaded.
fn read_state() -> Option<FeedState> {
    require_preload();
    READ_STATE.with(|statement| {
        statement.read(Snapshot::Caller, &[], |rows| {
            let row = rows.first()?;
            Some(FeedState {
                epoch: row.text(1)?,
                seq: row.bigint(2)?,
                oldest_seq: row.bigint(3)?,
            })
        })
    })
}

impl ToRow for FeedState {
    fn with_row<R>(&self, take: impl FnOnce(&[Value]) -> R) -> R {
        take(&[Value::Text(&self.epoch), Value::Bigint(self.seq)])
    }
}

/// Returns the epoch and the sequence number of the newest change. Read it before `user_presence`. Errors: 55000 where
/// the library is not preloaded.
#[pg_extern(
    requires = ["types"],
    sql = r#"
CREATE FUNCTION @extschema@.presence_cursor() RETURNS @extschema@.presence_feed_cursor
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
fn presence_cursor() -> Option<Composite<FeedState>> {
    read_state().map(Composite)
}

/// Returns the changes after `seq`, in order, at most `max_rows` of them; none for a `seq` that is NULL, or newer than
/// the newest change of the same epoch, as it is where a replica lags. Errors: 72000 where the epoch differs, changes after
/// `seq` are no longer kept, or `seq` is newer than the newest and no epoch tells why; 22023 where `max_rows` is not
/// positive; 55000 where the library is not preloaded.
#[pg_extern(
    requires = ["tables"],
    sql = r#"
CREATE FUNCTION @extschema@.changes_since(
    seq pg_catalog.int8,
    epoch pg_catalog.text DEFAULT NULL,
    max_rows pg_catalog.int4 DEFAULT 1000
) RETURNS SETOF @extschema@.presence_changes
LANGUAGE c STABLE PARALLEL SAFE ROWS 1000
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
fn changes_since(
    seq: Option<i64>,
    epoch: Option<Text>,
    max_rows: default!(Option<i32>, 1000),
    mut changes: ResultSet,
) -> ResultSet {
    let max_rows = max_rows.unwrap_or(1000);
    if max_rows < 1 {
        errors::bad_value(
            "max_rows must be positive",
            "",
            "Omit max_rows for the default of 1000.",
        );
    }
    let (Some(seq), Some(state)) = (seq, read_state()) else {
        return changes;
    };
    let is_other_epoch = match epoch {
        Some(epoch) => *epoch != *state.epoch,
        None => seq > state.seq,
    };
    if is_other_epoch || seq < state.oldest_seq - 1 {
        errors::feed_too_old();
    }
    if seq < state.seq {
        READ_CHANGES.with(|statement| {
            statement.read(
                Snapshot::Caller,
                &[Value::Bigint(seq), Value::Bigint(max_rows.into())],
                |rows| {
                    let mut last = seq;
                    for row in rows.iter() {
                        // Somebody has deleted changes that the feed should still have.
                        if row.bigint(1) != Some(last + 1) {
                            errors::feed_too_old();
                        }
                        last += 1;
                        changes.push_row(row);
                    }
                    if last < state.seq && last - seq < max_rows.into() {
                        errors::feed_too_old();
                    }
                },
            );
        });
    }
    changes
}
