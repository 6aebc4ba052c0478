//! `_feed_state`: where the feed matches, and which unbroken line of sequence numbers it belongs to.

use pgrx::pg_sys;

use super::{
    rows::Row,
    statement::{Snapshot, Statement},
    value::{self, Value},
};
use crate::pg::{compat, installed};

/// Where the feed matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedState {
    /// Names the line of sequence numbers.
    pub epoch: String,
    /// The newest sequence number given out.
    pub seq: i64,
    /// The oldest one that `presence_changes` still has, or the next one if it is empty.
    pub oldest: i64,
}

thread_local! {
    static READ: Statement = const { Statement::on_many(
        |schema| format!("SELECT epoch, seq, oldest_seq, origin FROM {schema}._feed_state ORDER BY seq DESC, epoch"),
        &[],
    ) };
    static KEPT: Statement = const { Statement::on_many(
        |schema| format!("SELECT min(seq), max(seq) FROM {schema}.presence_changes"),
        &[],
    ) };
    static UNBROKEN: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT max(c.seq) FROM {schema}.presence_changes c
             WHERE NOT EXISTS (SELECT FROM {schema}.presence_changes p WHERE p.seq = c.seq - 1)"
        ),
        &[],
    ) };
    static REPLACE: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH gone AS (DELETE FROM {schema}._feed_state WHERE epoch = ANY ($5)),
                 forgotten AS (DELETE FROM {schema}.presence_changes WHERE seq < $3)
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

/// One row of `_feed_state` with the place it was written for.
struct Found {
    state: FeedState,
    origin: Option<String>,
}

fn read() -> Vec<Found> {
    let found = |row: Row| Found {
        state: FeedState {
            epoch: row.text_if_valid(1).unwrap_or_default(),
            seq: row.bigint(2).unwrap_or_default(),
            oldest: row.bigint(3).unwrap_or_default(),
        },
        origin: row.text_if_valid(4),
    };
    READ.with(|statement| statement.read(Snapshot::Latest, &[], |rows| rows.iter().map(found).collect()))
}

/// Whether the one row of `_feed_state` says what the worker believes. It does not after a restore into a running
/// database. To be called in a transaction.
pub fn matches(believed: &FeedState) -> bool {
    let rows = read();
    rows.len() == 1 && rows[0].state == *believed && rows[0].origin.as_deref() == Some(&here())
}

/// Makes `_feed_state` one row that belongs here, and gives it.
///
/// The epoch is kept only if nothing that was told can have been lost or can be told twice. It changes where there is
/// not exactly one row (a restore adds one), where the row was written for another server, timeline, database or table
/// (a copy, a promotion, a recovery to a point in time, a restore), and where `presence_changes` has more than the row
/// knows of. Sequence numbers go on from the highest one found. To be called in a transaction, with the table locked.
pub fn reconcile() -> FeedState {
    let here = here();
    let rows = read();
    let (first_kept, last_kept) = KEPT.with(|statement| {
        statement.read(Snapshot::Latest, &[], |rows| {
            rows.first().map_or((None, None), |row| (row.bigint(1), row.bigint(2)))
        })
    });

    let highest = rows.iter().map(|row| row.state.seq).chain(last_kept).max().unwrap_or(0);
    let same_line = match rows.as_slice() {
        [row] => {
            let ours = match &row.origin {
                Some(origin) => *origin == here,
                // As the install script left it.
                None => row.state.seq == 0,
            };
            ours && row.state.seq == highest
        }
        _ => false,
    };
    let oldest = if same_line {
        rows[0].state.oldest.max(first_kept.unwrap_or(highest + 1))
    } else if last_kept == Some(highest) {
        unbroken_from().unwrap_or(highest)
    } else {
        highest + 1
    };
    let epoch = same_line.then(|| rows[0].state.epoch.clone());
    if same_line && rows[0].origin.as_deref() == Some(&*here) && rows[0].state.oldest == oldest {
        return rows
            .into_iter()
            .next()
            .map(|row| row.state)
            .unwrap_or_else(|| unreachable!("one row"));
    }
    // A restore may add its row between our read and our write: what has not been read is left for the next time.
    let replaced = rows.iter().map(|row| row.state.epoch.clone());
    let values = [
        epoch.as_deref().map_or(Value::Null, Value::Text),
        Value::Bigint(highest),
        Value::Bigint(oldest),
        Value::Text(&here),
        value::list(replaced),
    ];
    let epoch =
        REPLACE.with(|statement| statement.write(&values, |rows| rows.first().and_then(|row| row.text_if_valid(1))));
    FeedState {
        epoch: epoch.unwrap_or_default(),
        seq: highest,
        oldest,
    }
}

/// From where on `presence_changes` has every number up to its last. A change told while a restore was under way may
/// stand apart from the rest.
fn unbroken_from() -> Option<i64> {
    UNBROKEN.with(|statement| statement.read(Snapshot::Latest, &[], |rows| rows.first().and_then(|row| row.bigint(1))))
}

/// The place an epoch belongs to: server, timeline, database, table.
fn here() -> String {
    // SAFETY: a plain global of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    format!(
        "{:x}/{}/{}/{}",
        compat::system_identifier(),
        compat::timeline(),
        database.to_u32(),
        installed::get().sessions.to_u32()
    )
}
