//! Who is hidden: the rows of the source 'visibility' in `declared_statuses`.
//!
//! They are read as PostgreSQL reads its catalogs, with a snapshot of its own for each read, and without a statement. So
//! somebody who keeps a snapshot, or has a parallel worker read with that of its leader, does not see who has hidden since.

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    num::NonZeroUsize,
};

use pgrx::{FromDatum, htup::heap_getattr_raw, pg_sys};
use uuid::Uuid;

use super::{
    declared,
    statement::{Snapshot, Statement},
    value::Value,
};
use crate::{
    pg::{compat, errors, fault_point, installed, memory::Reserve, text},
    roster::{Reservation, Tenant},
    rules::{
        hiding::{Hiding, VISIBILITY, Visible},
        time::Micros,
    },
    settings,
};

/// Of more users than these, all rows are read.
pub const MAX_BY_KEY: usize = 1000;

thread_local! {
    static SUSPEND: Statement = const { Statement::new(
        |s| follow(s, "shown_at = $1", HIDES),
        &[pg_sys::TIMESTAMPTZOID],
    ) };
    static HIDES_ANY_ITSELF: Statement = const { Statement::new(
        |s| format!("SELECT {} LIMIT 1", own_rows(s, HIDES)),
        &[pg_sys::TIMESTAMPTZOID],
    ) };
    static RESUME: Statement = const { Statement::new(
        |s| follow(s, "shown_at = NULL", IS_SUSPENDED),
        &[pg_sys::TIMESTAMPTZOID],
    ) };
    static IS_ANY_SUSPENDED: Statement = const { Statement::new(
        |s| format!("SELECT {} LIMIT 1", own_rows(s, IS_SUSPENDED)),
        &[pg_sys::TIMESTAMPTZOID],
    ) };
}

const HIDES: &str = "d.shown_at IS NULL";
/// One that was ended otherwise has expired with that.
const IS_SUSPENDED: &str = "d.shown_at <> coalesce(d.expires_at, 'infinity')";

fn follow(schema: &str, set: &str, which: &str) -> String {
    format!(
        "UPDATE {schema}.declared_statuses SET {set}
         WHERE source = 'visibility' AND user_id IN (
             SELECT d.user_id {} LIMIT {MAX_BY_KEY} FOR UPDATE SKIP LOCKED
         )",
        own_rows(schema, which)
    )
}

/// Rows of users who have hidden themselves.
fn own_rows(schema: &str, which: &str) -> String {
    format!(
        "FROM {schema}.declared_statuses d WHERE d.source = 'visibility' AND d.by_user AND {which}
             AND (d.expires_at IS NULL OR d.expires_at > $1)"
    )
}

/// The columns, by their numbers when created.
const USER_ID: (usize, &CStr) = (1, c"user_id");
const SOURCE: (usize, &CStr) = (2, c"source");
const EXPIRES_AT: (usize, &CStr) = (7, c"expires_at");
const BY_USER: (usize, &CStr) = (8, c"by_user");
const LAST_SEEN: (usize, &CStr) = (9, c"last_seen");
const SHOWN_AT: (usize, &CStr) = (10, c"shown_at");

/// Returns the rows of these users who have one. The caller has locked the table, see [`super::declared::try_lock`].
pub fn of_users(users: &[Uuid]) -> HashMap<Uuid, Hiding> {
    if users.len() > MAX_BY_KEY {
        let mut asked: HashSet<Uuid> = HashSet::new();
        asked.make_room(users.len());
        asked.extend(users);
        let mut found = all();
        found.retain(|user, _| asked.contains(user));
        return found;
    }
    let mut found = HashMap::new();
    for user in users {
        read(Some(user), &mut |user, hiding| {
            found.make_room(1);
            found.insert(user, hiding);
            true
        });
    }
    found
}

/// Returns all rows. The caller has locked the table.
pub fn all() -> HashMap<Uuid, Hiding> {
    let mut found = HashMap::new();
    read(None, &mut |user, hiding| {
        found.make_room(1);
        found.insert(user, hiding);
        true
    });
    found
}

/// Returns whether there is any row. The caller has locked the table.
pub fn exists() -> bool {
    let mut found = false;
    read(None, &mut |_, _| {
        found = true;
        false
    });
    found
}

/// Returns whether anything is declared of a user but that it is hidden, valid or not. The caller has locked the table.
pub fn declares_else(user: &Uuid) -> bool {
    let mut found = false;
    scan(Some(user), &mut |row| {
        found |= !row.is_visibility();
        !found
    });
    found
}

/// Looks whether the user of a reservation is hidden, where nobody has. To be called after the reservation is kept somewhere, as
/// an error here cancels it. Where others have locked the table, the worker looks later.
pub fn resolve(tenant: Tenant, reservation: &Reservation, user: &Uuid) {
    if !tenant.is_unresolved(reservation) {
        return;
    }
    fault_point::pause("resolve");
    if !declared::try_lock() {
        return tenant.lose_visibility();
    }
    let mut found = None;
    read(Some(user), &mut |_, hiding| {
        found = Some(hiding);
        false
    });
    tenant.resolve(reservation, found.as_ref(), settings::active_timeout());
}

/// Ends the hidings of users who have hidden themselves, where they may not any more, and begins them again where they may: of some
/// users. Returns whether none is left.
pub fn follow_setting(allowed: bool, now: Micros) -> bool {
    let (follow, is_left) = match allowed {
        true => (&RESUME, &IS_ANY_SUSPENDED),
        false => (&SUSPEND, &HIDES_ANY_ITSELF),
    };
    let values = [Value::Time(now)];
    follow.with(|follow| follow.write(&values, |_| ()));
    is_left.with(|is_left| is_left.read(Snapshot::Latest, &values, |rows| rows.count() == 0))
}

/// Returns when the first of these ends by itself that hide their users at `now`.
pub fn next_end(hidings: &HashMap<Uuid, Hiding>, now: Micros) -> Option<Micros> {
    let ends = hidings.values().filter(|hiding| hiding.hides(now));
    ends.filter_map(|hiding| hiding.expires_at).min()
}

/// Returns what was visible of users before and after their sessions were read; see [`Visible::throughout`]. Those are in a map who are
/// hidden or were.
pub fn throughout(mut before: HashMap<Uuid, Visible>, after: &HashMap<Uuid, Visible>) -> HashMap<Uuid, Visible> {
    for (user, visible) in &mut before {
        *visible = visible.throughout(after.get(user).copied());
    }
    before.make_room(after.len());
    for (user, visible) in after {
        before
            .entry(*user)
            .or_insert_with(|| Visible::ALL.throughout(Some(*visible)));
    }
    before
}

/// Reads the row of a user, or all rows, until `f` returns false.
fn read(of: Option<&Uuid>, f: &mut dyn FnMut(Uuid, Hiding) -> bool) {
    scan(of, &mut |row| row.hiding().is_none_or(|(user, hiding)| f(user, hiding)));
}

/// Reads the rows of a user, of whatever source, or all rows that hide one, and perhaps others, until `f` returns false.
fn scan(of: Option<&Uuid>, f: &mut dyn FnMut(&Row) -> bool) {
    let install = installed::get();
    let index = match of {
        Some(_) => install.declared_key,
        None => install.visibility_index,
    };
    // SAFETY: the caller has locked the table and its indexes, and the transaction keeps the locks. An error ends the
    // transaction, which releases what is open. A tuple is valid until the next is read, and no value outlives it.
    unsafe {
        let table = pg_sys::table_open(install.declared, pg_sys::NoLock as i32);
        let descriptor = (*table).rd_att;
        let number = |(own, name): (usize, &CStr)| compat::column_number(descriptor, own, name);
        let mut key = pg_sys::ScanKeyData::default();
        if let Some(user) = of {
            pg_sys::ScanKeyInit(
                &mut key,
                number(USER_ID) as i16,
                pg_sys::BTEqualStrategyNumber as u16,
                pg_sys::F_UUID_EQ.into(),
                pg_sys::Datum::from(user.as_bytes().as_ptr()),
            );
        }
        let keys = i32::from(of.is_some());
        let scan = pg_sys::systable_beginscan(table, index, is_usable(index), std::ptr::null_mut(), keys, &mut key);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            if !f(&Row { tuple, descriptor }) {
                break;
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, pg_sys::NoLock as i32);
    }
}

/// Returns whether an index is there, and complete.
///
/// # Safety
/// The caller has locked it, if it is there.
unsafe fn is_usable(index: pg_sys::Oid) -> bool {
    if index == pg_sys::InvalidOid {
        return false;
    }
    // SAFETY: as the caller promises.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(index);
        if relation.is_null() {
            return false;
        }
        let is_valid = !(*relation).rd_index.is_null() && (*(*relation).rd_index).indisvalid;
        pg_sys::RelationClose(relation);
        is_valid
    }
}

/// A row of the table.
struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    fn is_visibility(&self) -> bool {
        self.datum(SOURCE, pg_sys::TEXTOID)
            // SAFETY: a text, as checked, in a tuple that is valid.
            .is_some_and(|source| unsafe { text::bytes(source) } == VISIBILITY.as_bytes())
    }

    /// Returns the user and what hides it; `None` of another source.
    fn hiding(&self) -> Option<(Uuid, Hiding)> {
        if !self.is_visibility() {
            return None;
        }
        // SAFETY: a uuid, as checked.
        let user = unsafe { pgrx::Uuid::from_datum(self.datum(USER_ID, pg_sys::UUIDOID)?, false) }?;
        let hiding = Hiding {
            expires_at: self.time(EXPIRES_AT),
            shown_at: self.time(SHOWN_AT),
            by_user: self
                .datum(BY_USER, pg_sys::BOOLOID)
                .is_some_and(|datum| datum.value() != 0),
            last_seen: self.time(LAST_SEEN),
        };
        Some((Uuid::from_bytes(*user), hiding))
    }

    fn time(&self, column: (usize, &CStr)) -> Option<Micros> {
        self.datum(column, pg_sys::TIMESTAMPTZOID)
            .map(|datum| datum.value() as Micros)
    }

    /// Returns the value of a column; `None` for NULL. Errors: 55000 where it is not of the type that it was created with.
    fn datum(&self, (own, name): (usize, &CStr), of_type: pg_sys::Oid) -> Option<pg_sys::Datum> {
        // SAFETY: tuple and descriptor are valid and belong together, and the number is checked.
        unsafe {
            let number = compat::column_number(self.descriptor, own, name);
            if compat::column_type(self.descriptor, number) != Some(of_type) {
                errors::damaged_install();
            }
            heap_getattr_raw(self.tuple, NonZeroUsize::new(number)?, self.descriptor)
        }
    }
}
