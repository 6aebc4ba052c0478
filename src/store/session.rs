//! Single rows of `user_sessions`, for calls that the roster cannot answer.

use std::{cell::RefCell, ffi::CString};

use pgrx::{FromDatum, IntoDatum, pg_sys};
use uuid::Uuid;

use super::as_owner;
use crate::{
    core::{key, time::Micros, token::Digest},
    installed,
    roster::{Key, LoadedRow, Owner},
};

/// A row, as far as presence cares.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub session: LoadedRow,
}

impl Row {
    /// Whether the session has ended for good at `now`.
    pub fn has_ended(&self, now: Micros) -> bool {
        self.session.ended || now >= self.session.expires_at
    }
}

const COLUMNS: &str = "id, user_id, auth_id, session_token, is_active, last_activity, expires_at, \
                       ended_at IS NOT NULL, user_key";

/// A statement prepared once per backend, for the install it was prepared for.
struct Prepared {
    sessions: pg_sys::Oid,
    by_id: pg_sys::SPIPlanPtr,
    by_digest: pg_sys::SPIPlanPtr,
    beat: pg_sys::SPIPlanPtr,
}

thread_local! {
    static PREPARED: RefCell<Option<Prepared>> = const { RefCell::new(None) };
}

/// Opens SPI, and closes it again; an error in between closes it by the abort.
struct Connection;

impl Connection {
    fn open() -> Connection {
        // SAFETY: paired with SPI_finish in `drop`.
        unsafe { pg_sys::SPI_connect() };
        Connection
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by `open`.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

fn prepare(sql: &str, types: &mut [pg_sys::Oid]) -> pg_sys::SPIPlanPtr {
    let sql = CString::new(sql).expect("our own SQL has no NUL");
    // SAFETY: inside an SPI connection; a kept plan lives until the backend ends.
    unsafe {
        let plan = pg_sys::SPI_prepare(sql.as_ptr(), types.len() as i32, types.as_mut_ptr());
        if plan.is_null() {
            crate::errors::damaged_install();
        }
        pg_sys::SPI_keepplan(plan);
        plan
    }
}

/// Which of the prepared statements.
#[derive(Clone, Copy)]
enum Which {
    ById,
    ByDigest,
    Beat,
}

fn plan(which: Which) -> pg_sys::SPIPlanPtr {
    let sessions = installed::get().sessions;
    let known = PREPARED.with_borrow(|prepared| {
        prepared
            .as_ref()
            .filter(|p| p.sessions == sessions)
            .map(|p| match which {
                Which::ById => p.by_id,
                Which::ByDigest => p.by_digest,
                Which::Beat => p.beat,
            })
    });
    if let Some(plan) = known {
        return plan;
    }
    let table = format!("{}.user_sessions", installed::schema_name());
    let prepared = Prepared {
        sessions,
        by_id: prepare(
            &format!("SELECT {COLUMNS} FROM {table} WHERE id = $1"),
            &mut [pg_sys::UUIDOID],
        ),
        by_digest: prepare(
            &format!(
                "SELECT {COLUMNS} FROM {table} WHERE session_token = $1 \
                 ORDER BY ended_at IS NOT NULL, ended_at DESC LIMIT 1"
            ),
            &mut [pg_sys::TEXTOID],
        ),
        beat: prepare(
            &format!(
                "UPDATE {table} SET last_activity = clock_timestamp(), is_active = true \
                 WHERE id = $1 AND ended_at IS NULL AND expires_at > clock_timestamp()"
            ),
            &mut [pg_sys::UUIDOID],
        ),
    };
    // The plans of an install that has been dropped are kept by the backend: there is one of them per DROP.
    PREPARED.set(Some(prepared));
    plan(which)
}

/// Runs a plan with one argument; gives how many rows it gave or changed.
fn run(plan: pg_sys::SPIPlanPtr, argument: pg_sys::Datum, read_only: bool) -> u64 {
    let mut values = [argument];
    // SAFETY: inside an SPI connection, with a plan of one argument. A read-only plan runs on the active snapshot:
    // the newest one there is, whatever the isolation level, with what this transaction itself has done.
    unsafe {
        if read_only {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        }
        let code =
            pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), std::ptr::null(), read_only, 0);
        if read_only {
            pg_sys::PopActiveSnapshot();
        }
        if code < 0 {
            crate::errors::damaged_install();
        }
        pg_sys::SPI_processed
    }
}

/// A column of the first row that the last plan gave.
///
/// # Safety
/// The last plan gave a row whose column `number` has type `T`.
unsafe fn column<T: FromDatum>(number: i32) -> Option<T> {
    // SAFETY: as the caller promises; SPI_tuptable is the last plan's.
    unsafe {
        let table = &*pg_sys::SPI_tuptable;
        let mut null = false;
        let datum = pg_sys::SPI_getbinval(*table.vals, table.tupdesc, number, &mut null);
        T::from_datum(datum, null)
    }
}

fn uuid(id: pgrx::Uuid) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// The session's row as it is committed now (or written by this transaction), if it is `owner`'s. Reads it either
/// way, so that a foreign session takes as long as an unknown one.
pub fn find(key: &Key, owner: &Owner) -> Option<Row> {
    as_owner(|| {
        let _connection = Connection::open();
        let found = match key {
            Key::Id(id) => {
                let id = pgrx::Uuid::from_bytes(*id.as_bytes()).into_datum();
                run(plan(Which::ById), id.expect("a UUID is not null"), true)
            }
            Key::Digest(digest) => {
                let text = digest.to_text().into_datum();
                run(
                    plan(Which::ByDigest),
                    text.expect("a text is not null"),
                    true,
                )
            }
        };
        if found == 0 {
            return None;
        }
        // SAFETY: a row of COLUMNS was given.
        let row = unsafe { first_row() };
        let own = match owner {
            Owner::Any => true,
            Owner::Auth(id) => *id == row.session.auth_id,
            Owner::Nobody => false,
        };
        own.then_some(row)
    })
}

/// # Safety
/// The last plan gave a row of [`COLUMNS`].
unsafe fn first_row() -> Row {
    const MISSING: &str = "the column is not null";
    // SAFETY: the types are those of the columns.
    unsafe {
        let user_id = uuid(column(2).expect(MISSING));
        let token: String = column(4).expect(MISSING);
        let user_key: Option<String> = column(9);
        Row {
            session: LoadedRow {
                id: uuid(column(1).expect(MISSING)),
                user_id,
                auth_id: uuid(column(3).expect(MISSING)),
                digest: Digest::parse(&token).unwrap_or_else(|| crate::errors::damaged_install()),
                is_active: column(5).expect(MISSING),
                last_activity: column::<i64>(6).expect(MISSING),
                expires_at: column::<i64>(7).expect(MISSING),
                ended: column(8).expect(MISSING),
                keyed: is_keyed(user_id, user_key.as_deref()),
            },
        }
    }
}

/// Whether a user has a key that its id does not tell.
pub fn is_keyed(user_id: Uuid, user_key: Option<&str>) -> bool {
    user_key.is_some() && key::integer_of(user_id).is_none()
}

/// A heartbeat for a session that the roster has no room for: an UPDATE, which counts at commit. False if the
/// session has ended meanwhile.
pub fn beat(id: &Uuid) -> bool {
    as_owner(|| {
        let _connection = Connection::open();
        let id = pgrx::Uuid::from_bytes(*id.as_bytes()).into_datum();
        run(plan(Which::Beat), id.expect("a UUID is not null"), false) > 0
    })
}
