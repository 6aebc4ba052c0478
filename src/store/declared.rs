//! What is declared of users: reads `declared_statuses`, and deletes what has expired long ago.

use std::collections::HashMap;

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    own_write,
    rows::Row,
    statement::{Snapshot, Statement},
    value::Value,
};
use crate::{
    pg::{
        installed::Installed,
        memory::{self, Reserve},
        text::EncodedText,
    },
    rules::{
        declared::{self, Declaration, Word},
        time::Micros,
    },
};

/// What is declared of one user.
pub type Declared = declared::Declared<EncodedText>;
/// What is shown of one user.
pub type Shown = declared::Shown<EncodedText>;

/// Rows in memory at a time.
const BATCH: i64 = 10_000;

/// What [`declaration`] reads, and which rows: those that are valid at `$1`.
const COLUMNS: &str = "d.user_id, d.source, d.status, d.status_text, d.emoji, d.set_at, d.expires_at";
const VALID: &str = "(d.expires_at IS NULL OR d.expires_at > $1)";

thread_local! {
    static OF_USERS: Statement = const { Statement::new(
        |s| format!("SELECT {COLUMNS} FROM {s}.declared_statuses d WHERE {VALID} AND d.user_id = ANY ($2)"),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::UUIDARRAYOID],
    ) };
    static OF_ALL: Statement = const { Statement::on_all(
        |s| format!("SELECT {COLUMNS} FROM {s}.declared_statuses d WHERE {VALID}"),
        &[pg_sys::TIMESTAMPTZOID],
    ) };
    static OF_KNOWN: Statement = const { Statement::on_all(
        |s| format!(
            "SELECT {COLUMNS} FROM {s}.declared_statuses d
             WHERE {VALID} AND EXISTS (SELECT FROM {s}.user_presence p WHERE p.user_id = d.user_id)"
        ),
        &[pg_sys::TIMESTAMPTZOID],
    ) };
    static EXPIRED: Statement = const { Statement::new(
        |s| format!(
            "SELECT DISTINCT user_id FROM {s}.declared_statuses WHERE expires_at > $1 AND expires_at <= $2"
        ),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID],
    ) };
    static NEXT_EXPIRY: Statement = const { Statement::new(
        |s| format!(
            "SELECT expires_at FROM {s}.declared_statuses WHERE expires_at > $1 ORDER BY expires_at LIMIT 1"
        ),
        &[pg_sys::TIMESTAMPTZOID],
    ) };
    static ANY: Statement = const { Statement::new(|s| format!("SELECT FROM {s}.declared_statuses LIMIT 1"), &[]) };
    static DELETE_EXPIRED: Statement = const { Statement::new(
        |s| format!(
            "WITH available AS MATERIALIZED (
                 SELECT ctid AS row_ctid FROM {s}.declared_statuses
                 WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
                 FOR UPDATE SKIP LOCKED
             )
             DELETE FROM {s}.declared_statuses d USING available a WHERE d.ctid = a.row_ctid"
        ),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID],
    ) };
    // As `capture_state` of the triggers on the other tables.
    static CAPTURE_STATE: Statement = const { Statement::on_many(
        |_| "SELECT hashtextextended(concat_ws(';',
                        string_agg(format('%s %s %s', t.oid, t.xmin, d.xmin), ',' ORDER BY t.oid),
                        (SELECT relfilenode FROM pg_class WHERE oid = $1)), 0),
                    2 = count(*) FILTER (WHERE t.tgenabled = 'A' AND d.refobjid IS NOT NULL)
             FROM pg_trigger t LEFT JOIN pg_depend d
                 ON d.classid = 'pg_trigger'::regclass AND d.objid = t.oid AND d.deptype = 'x'
                     AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = $2
             WHERE t.tgrelid = $1 AND t.tgname IN ('presence_capture', 'presence_capture_truncate')"
            .to_owned(),
        &[pg_sys::OIDOID, pg_sys::OIDOID],
    ) };
}

/// Returns what is declared of these users at `now`; nobody is in it of whom nothing is.
pub fn of_users(users: &[Uuid], now: Micros) -> HashMap<Uuid, Declared> {
    let mut declared = HashMap::new();
    OF_USERS.with(|statement| {
        statement.read(Snapshot::Latest, &[Value::Time(now), Value::Uuids(users)], |rows| {
            rows.iter().for_each(|row| add(&mut declared, &row, now));
        });
    });
    declared
}

/// As [`of_users`], of all users.
pub fn of_all(now: Micros) -> HashMap<Uuid, Declared> {
    let mut declared = HashMap::new();
    OF_ALL.with(|statement| {
        statement.read(Snapshot::Latest, &[Value::Time(now)], |rows| {
            rows.iter().for_each(|row| add(&mut declared, &row, now));
        });
    });
    declared
}

/// As [`of_users`], of all users who have a row in `user_presence`.
pub fn of_known(now: Micros) -> HashMap<Uuid, Declared> {
    let mut declared = HashMap::new();
    OF_KNOWN.with(|statement| {
        statement.read_in_batches(&[Value::Time(now)], BATCH, |row| add(&mut declared, &row, now), || true);
    });
    declared
}

fn add(declared: &mut HashMap<Uuid, Declared>, row: &Row, now: Micros) {
    if let Some((user_id, declaration)) = declaration(row) {
        declared.make_room(1);
        declared.entry(user_id).or_default().add(declaration, now);
    }
}

fn declaration(row: &Row) -> Option<(Uuid, Declaration<EncodedText>)> {
    let declaration = Declaration {
        source: memory::copy(row.bytes(2)?).into_boxed_slice(),
        word: row.bytes(3).and_then(Word::from_label),
        text: row.encoded_text(4),
        emoji: row.encoded_text(5),
        set_at: row.time(6)?,
        expires_at: row.time(7),
    };
    Some((row.uuid(1)?, declaration))
}

/// Returns the users of whom something has expired after `after`, at `until` at the latest.
pub fn expired_users(after: Micros, until: Micros) -> Vec<Uuid> {
    EXPIRED.with(|statement| {
        statement.read(Snapshot::Latest, &[Value::Time(after), Value::Time(until)], |rows| {
            memory::collect(rows.iter().filter_map(|row| row.uuid(1)))
        })
    })
}

/// Returns when something expires next, after `after`.
pub fn next_expiry(after: Micros) -> Option<Micros> {
    NEXT_EXPIRY.with(|statement| statement.read(Snapshot::Latest, &[Value::Time(after)], |rows| rows.first()?.time(1)))
}

/// Returns whether the table is empty.
pub fn is_empty() -> bool {
    ANY.with(|statement| statement.read(Snapshot::Latest, &[], |rows| rows.count() == 0))
}

/// Deletes up to `limit` rows that have expired at `before` at the latest, but for those that others have locked. Returns
/// how many.
pub fn delete_expired(before: Micros, limit: i64) -> i64 {
    DELETE_EXPIRED.with(|statement| {
        own_write::run_on_presence(|| {
            statement.write(&[Value::Time(before), Value::Bigint(limit)], |rows| rows.count() as i64)
        })
    })
}

/// Reads how the triggers that see what is written to the table stand: a number that changes with them, and whether every
/// write fires them. To be called in a transaction.
pub fn capture_state(install: &Installed) -> (i64, bool) {
    let values = [Value::Oid(install.declared), Value::Oid(install.extension)];
    CAPTURE_STATE.with(|statement| {
        statement.read(Snapshot::Latest, &values, |rows| {
            let row = rows.first();
            let version = row.as_ref().and_then(|row| row.bigint(1)).unwrap_or(0);
            (version, row.and_then(|row| row.bool(2)).unwrap_or(false))
        })
    })
}
