//! The feed: where it stands, and what came after.
//!
//! Both functions see what the calling statement sees, so that a cursor is never ahead of the rows of `user_presence`
//! read after it.

use pgrx::{default, pg_extern, pg_sys};

use super::result::{Composite, ResultSet, ToRow};
use crate::{
    pg::{errors, text::Text},
    settings,
    store::{
        statement::{Snapshot, Statement},
        value::Value,
    },
};

thread_local! {
    static STATE: Statement = const { Statement::new(
        |s| format!("SELECT epoch, seq, oldest_seq FROM {s}._feed_state ORDER BY seq DESC LIMIT 1"),
        &[],
    ) };
    static CHANGES: Statement = const { Statement::new(
        |s| format!("SELECT * FROM {s}.presence_changes WHERE seq > $1 ORDER BY seq LIMIT $2"),
        &[pg_sys::INT8OID, pg_sys::INT8OID],
    ) };
}

/// Where the feed stands.
struct Cursor {
    epoch: String,
    seq: i64,
    /// The oldest change that is kept, or the next one where none is.
    oldest: i64,
}

impl Cursor {
    fn read() -> Option<Cursor> {
        if !settings::is_preloaded() {
            errors::not_preloaded();
        }
        STATE.with(|state| {
            state.read(Snapshot::Caller, &[], |rows| {
                let row = rows.first()?;
                Some(Cursor {
                    epoch: row.text(1)?,
                    seq: row.bigint(2)?,
                    oldest: row.bigint(3)?,
                })
            })
        })
    }
}

impl ToRow for Cursor {
    fn with_row<R>(&self, take: impl FnOnce(&[Value]) -> R) -> R {
        take(&[Value::Text(&self.epoch), Value::Bigint(self.seq)])
    }
}

/// Epoch and sequence of the last change. Read it before `user_presence`.
#[pg_extern(
    requires = ["types"],
    sql = r#"
CREATE FUNCTION @extschema@.presence_cursor() RETURNS @extschema@.presence_feed_cursor
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
fn presence_cursor() -> Option<Composite<Cursor>> {
    Cursor::read().map(Composite)
}

/// The changes after `seq`, in order, at most `max_rows` of them. Errors with 72000 where the epoch is another one or
/// changes after `seq` are no longer kept, with 22023 if `max_rows` is not positive. No rows for a `seq` that is NULL, or
/// newer than the newest change.
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
        errors::bad_value("max_rows must be positive", "", "Leave max_rows out for 1000.");
    }
    let (Some(seq), Some(position)) = (seq, Cursor::read()) else {
        return changes;
    };
    if epoch.is_some_and(|epoch| *epoch != *position.epoch) || seq < position.oldest - 1 {
        errors::feed_too_old();
    }
    if seq < position.seq {
        CHANGES.with(|since| {
            since.read(
                Snapshot::Caller,
                &[Value::Bigint(seq), Value::Bigint(max_rows.into())],
                |rows| {
                    rows.iter().for_each(|row| changes.push_row(row));
                },
            );
        });
    }
    changes
}
