//! `_feed_state`: the feed's epoch, and its newest and oldest sequence numbers.

use pgrx::pg_sys;

use super::{
    rows::Row,
    statement::{Snapshot, Statement},
    value::{self, Value},
};
use crate::{
    pg::{compat, installed},
    roster,
};

/// The state of the feed. By default, of none: no table has an empty epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedState {
    /// Names one unbroken line of sequence numbers.
    pub epoch: String,
    /// The newest sequence number assigned.
    pub seq: i64,
    /// The oldest one that `presence_changes` still has, or the next one to be assigned if it is empty.
    pub oldest_seq: i64,
}

thread_local! {
    static STATE_ROWS: Statement = const { Statement::on_many(
        |schema| format!("SELECT epoch, seq, oldest_seq, origin FROM {schema}._feed_state ORDER BY seq DESC, epoch"),
        &[],
    ) };
    static FIRST_AND_LAST_SEQ: Statement = const { Statement::on_many(
        |schema| format!("SELECT min(seq), max(seq) FROM {schema}.presence_changes"),
        &[],
    ) };
    static CONTIGUOUS_FROM: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT max(c.seq) FROM {schema}.presence_changes c
             WHERE NOT EXISTS (SELECT FROM {schema}.presence_changes p WHERE p.seq = c.seq - 1)"
        ),
        &[],
    ) };
    static REPLACE: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH deleted_rows AS (DELETE FROM {schema}._feed_state WHERE epoch = ANY ($5)),
                 deleted_changes AS (DELETE FROM {schema}.presence_changes WHERE seq < $3)
             INSERT INTO {schema}._feed_state (epoch, seq, oldest_seq, origin)
             VALUES (coalesce($1, gen_random_uuid()::text), $2, $3, $4)
             RETURNING epoch"
        ),
        &[
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::INT8OID,
            pg_sys::TEXTOID,
            pg_sys::TEXTARRAYOID,
        ],
    ) };
}

/// A row of `_feed_state`.
struct StateRow {
    state: FeedState,
    /// The [`current_origin`] when the row was written; `None`: as the install script inserted it.
    origin: Option<String>,
}

fn read_rows() -> Vec<StateRow> {
    let parse = |row: Row| StateRow {
        state: FeedState {
            epoch: row.text_if_valid(1).unwrap_or_default(),
            seq: row.bigint(2).unwrap_or_default(),
            oldest_seq: row.bigint(3).unwrap_or_default(),
        },
        origin: row.text_if_valid(4),
    };
    STATE_ROWS.with(|statement| statement.read(Snapshot::Latest, &[], |rows| rows.iter().map(parse).collect()))
}

/// Whether `_feed_state` is one row that belongs here and equals `expected`. After a restore into a running database it
/// does not. To be called in a transaction.
pub fn matches(expected: &FeedState) -> bool {
    let rows = read_rows();
    rows.len() == 1 && rows[0].state == *expected && rows[0].origin.as_deref() == Some(&current_origin())
}

/// Makes `_feed_state` one row that belongs here, and returns its state. To be called in a transaction, with the table
/// locked.
///
/// The epoch is kept only if no published change can have been lost, and none can be published twice. There is a new
/// one where there is not exactly one row (a restore adds one), where the row was written for another server, timeline,
/// lineage, database or table (a copy, a promotion, a point-in-time recovery, a restore, a start after a crash), or for
/// none yet, and where `presence_changes` has newer numbers than the row. Sequence numbers continue from the highest one found.
pub fn reconcile() -> FeedState {
    let origin = current_origin();
    let rows = read_rows();
    let (first_kept, last_kept) = FIRST_AND_LAST_SEQ.with(|statement| {
        statement.read(Snapshot::Latest, &[], |rows| {
            rows.first().map_or((None, None), |row| (row.bigint(1), row.bigint(2)))
        })
    });

    let highest = rows.iter().map(|row| row.state.seq).chain(last_kept).max().unwrap_or(0);
    let keeps_epoch = match rows.as_slice() {
        [row] => {
            let is_ours = match &row.origin {
                Some(row_origin) => *row_origin == origin,
                // As the install script inserted it: perhaps in the template of this database.
                None => false,
            };
            is_ours && row.state.seq == highest
        }
        _ => false,
    };
    let oldest_seq = if keeps_epoch {
        rows[0].state.oldest_seq.max(first_kept.unwrap_or(highest + 1))
    } else if last_kept == Some(highest) {
        contiguous_from().unwrap_or(highest)
    } else {
        highest + 1
    };
    let epoch = keeps_epoch.then(|| rows[0].state.epoch.clone());
    if keeps_epoch && rows[0].origin.as_deref() == Some(&*origin) && rows[0].state.oldest_seq == oldest_seq {
        return rows
            .into_iter()
            .next()
            .map(|row| row.state)
            .unwrap_or_else(|| unreachable!("one row"));
    }
    // A restore may add its row after the rows were read: it is left for the next reconciliation.
    let replaced = rows.iter().map(|row| row.state.epoch.clone());
    let values = [
        epoch.as_deref().map_or(Value::Null, Value::Text),
        Value::Bigint(highest),
        Value::Bigint(oldest_seq),
        Value::Text(&origin),
        value::array(replaced),
    ];
    let epoch =
        REPLACE.with(|statement| statement.write(&values, |rows| rows.first().and_then(|row| row.text_if_valid(1))));
    FeedState {
        epoch: epoch.unwrap_or_default(),
        seq: highest,
        oldest_seq,
    }
}

/// Returns the sequence number from which `presence_changes` has every one up to its last. Changes written while a
/// restore was in progress may be separated from the rest by a gap.
fn contiguous_from() -> Option<i64> {
    CONTIGUOUS_FROM
        .with(|statement| statement.read(Snapshot::Latest, &[], |rows| rows.first().and_then(|row| row.bigint(1))))
}

/// Returns what an epoch is bound to: server, timeline, lineage, database and table.
fn current_origin() -> String {
    // SAFETY: reads a global variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    format!(
        "{:x}/{}/{:x}/{}/{}",
        compat::system_identifier(),
        compat::timeline(),
        roster::lineage(),
        database.to_u32(),
        installed::get().sessions.to_u32()
    )
}
