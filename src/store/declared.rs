//! What is declared of users: reads `declared_statuses`.

use std::collections::{HashMap, HashSet};

use pgrx::{PgList, pg_sys};
use uuid::Uuid;

use super::{
    rows::Row,
    statement::{Snapshot, Statement},
    value::Value,
};
use crate::{
    pg::{
        installed::{self, Installed},
        memory::{self, Reserve},
        text::EncodedText,
    },
    rules::{
        declared::{self, Declaration, Word},
        status::Status,
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
             WHERE {VALID} AND (EXISTS (SELECT FROM {s}.user_presence p WHERE p.user_id = d.user_id)
                                OR EXISTS (SELECT FROM {s}.user_sessions u WHERE u.user_id = d.user_id))"
        ),
        &[pg_sys::TIMESTAMPTZOID],
    ) };
    static EXPIRED: Statement = const { Statement::new(
        |s| format!(
            "SELECT user_id, max(expires_at) FILTER (WHERE source = 'visibility' AND shown_at IS NULL)
             FROM {s}.declared_statuses WHERE expires_at > $1 AND expires_at <= $2 GROUP BY user_id"
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
    static LAST_WRITTEN: Statement = const { Statement::new(
        |s| format!(
            "SELECT user_id, status::text, idle_since IS NOT NULL, status_text, emoji, status_expires_at, last_seen
             FROM {s}.user_presence WHERE user_id = ANY ($1)"
        ),
        &[pg_sys::UUIDARRAYOID],
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

/// Locks the table for reading until the transaction ends, without waiting. Returns false where others have locked it.
pub fn try_lock() -> bool {
    try_lock_table(installed::get().declared, pg_sys::AccessShareLock)
}

/// Locks the table against writes until the transaction ends, without waiting. Returns whether it has.
pub fn try_lock_writers_out() -> bool {
    try_lock_table(installed::get().declared, pg_sys::ShareLock)
}

/// Locks a table and, as reading takes, its indexes: a REINDEX locks these more strongly.
fn try_lock_table(table: pg_sys::Oid, mode: u32) -> bool {
    let try_lock = |relation, mode: u32| {
        // SAFETY: in a transaction, which releases the lock at its end.
        unsafe { pg_sys::ConditionalLockRelationOid(relation, mode as i32) }
    };
    try_lock(table, mode) && {
        // SAFETY: the table is locked. Where it was dropped before, there is no entry of it; the list is a copy.
        let indexes = unsafe {
            let relation = pg_sys::RelationIdGetRelation(table);
            if relation.is_null() {
                return true;
            }
            let indexes = pg_sys::RelationGetIndexList(relation);
            pg_sys::RelationClose(relation);
            PgList::<pg_sys::Oid>::from_pg(indexes)
        };
        indexes.iter_oid().all(|index| try_lock(index, pg_sys::AccessShareLock))
    }
}

/// What was last written of a user as declared.
#[derive(Default)]
pub struct LastWritten {
    pub declared: Declared,
    pub last_seen: Option<Micros>,
    pub is_online: bool,
    /// Whether it tells what is declared: not where the user is idle, and may also be away, or where it is not known what of
    /// it has expired.
    pub is_certain: bool,
}

/// Returns what the worker has last written of these users, for where others have locked the table; nothing where they have
/// locked that table, too. Nobody waits for them.
pub fn last_written(users: &[Uuid], now: Micros) -> HashMap<Uuid, LastWritten> {
    let mut found = HashMap::new();
    if try_lock_table(installed::get().presence, pg_sys::AccessShareLock) {
        LAST_WRITTEN.with(|statement| {
            statement.read(Snapshot::Latest, &[Value::Uuids(users)], |rows| {
                for (user_id, written) in rows.iter().filter_map(|row| read_last_written(&row, now)) {
                    found.make_room(1);
                    found.insert(user_id, written);
                }
            });
        });
    }
    found
}

fn read_last_written(row: &Row, now: Micros) -> Option<(Uuid, LastWritten)> {
    let status = row.text_if_valid(2).and_then(|label| Status::from_label(&label))?;
    let all_idle = row.bool(3)?;
    let declaration = Declaration {
        source: Box::default(),
        word: match status {
            Status::Busy => Some(Word::Busy),
            Status::Idle if !all_idle => Some(Word::Away),
            _ => None,
        },
        text: row.encoded_text(4),
        emoji: row.encoded_text(5),
        set_at: now,
        expires_at: row.time(6),
    };
    let mut written = LastWritten {
        declared: Declared::default(),
        last_seen: row.time(7),
        is_online: status.is_online(),
        is_certain: declaration.is_valid(now) && !(status == Status::Idle && all_idle),
    };
    written.declared.add(declaration, now);
    Some((row.uuid(1)?, written))
}

/// Returns what is declared of these users at `now`; nobody is in it of whom nothing is.
pub fn of_users(users: &[Uuid], now: Micros) -> HashMap<Uuid, Declared> {
    let mut declared = HashMap::new();
    OF_USERS.with(|statement| {
        statement.read(Snapshot::Latest, &[Value::Time(now), Value::Uuids(users)], |rows| {
            rows.iter().for_each(|row| add(&mut declared, declaration(&row), now));
        });
    });
    declared
}

/// As [`of_users`], of many users, by a read of the whole table.
pub fn of_many(users: &[Uuid], now: Micros) -> HashMap<Uuid, Declared> {
    let mut asked: HashSet<Uuid> = HashSet::new();
    asked.make_room(users.len());
    asked.extend(users);
    let mut declared = HashMap::new();
    OF_ALL.with(|statement| {
        let add = |row: Row| {
            if row.uuid(1).is_some_and(|user| asked.contains(&user)) {
                add(&mut declared, declaration(&row), now);
            }
        };
        statement.read_in_batches(&[Value::Time(now)], BATCH, add, || true);
    });
    declared
}

/// As [`of_users`], of all users who have a session or a row in `user_presence`.
pub fn of_known(now: Micros) -> HashMap<Uuid, Declared> {
    let mut declared = HashMap::new();
    OF_KNOWN.with(|statement| {
        let add = |row: Row| add(&mut declared, declaration(&row), now);
        statement.read_in_batches(&[Value::Time(now)], BATCH, add, || true);
    });
    declared
}

fn add(declared: &mut HashMap<Uuid, Declared>, read: Option<(Uuid, Declaration<EncodedText>)>, now: Micros) {
    if let Some((user_id, declaration)) = read {
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

/// Returns the users of whom something has expired after `after`, at `until` at the latest, and until when they were hidden.
pub fn expired_users(after: Micros, until: Micros) -> Vec<(Uuid, Option<Micros>)> {
    let values = [Value::Time(after), Value::Time(until)];
    EXPIRED.with(|statement| {
        statement.read(Snapshot::Latest, &values, |rows| {
            memory::collect(rows.iter().filter_map(|row| Some((row.uuid(1)?, row.time(2)))))
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

/// How the triggers stand that see what is written to the table.
#[derive(Clone, Copy, Debug)]
pub struct CaptureState {
    /// A number that changes where one of them is enabled or disabled, and where the table is rewritten.
    pub version: i64,
    /// Whether every write fires them.
    pub is_enabled: bool,
}

/// Reads the state. To be called in a transaction.
pub fn capture_state(install: &Installed) -> CaptureState {
    let values = [Value::Oid(install.declared), Value::Oid(install.extension)];
    CAPTURE_STATE.with(|statement| {
        statement.read(Snapshot::Latest, &values, |rows| {
            let row = rows.first();
            CaptureState {
                version: row.as_ref().and_then(|row| row.bigint(1)).unwrap_or(0),
                is_enabled: row.and_then(|row| row.bool(2)).unwrap_or(false),
            }
        })
    })
}
