//! What a row of `declared_statuses` has to do with the others of its user: their number, and which was set last.

use pgrx::{IntoDatum, pg_sys};
use uuid::Uuid;

use super::session_limit::lock_number;
use crate::{
    pg::{errors, installed},
    roster,
    rules::{declared::MAX_DECLARATIONS, time::Micros},
    store::{
        statement::{Snapshot, Statement},
        value::Value,
    },
};

thread_local! {
    static COUNT: Statement = const { Statement::new(
        |s| format!(
            "SELECT count(*) FILTER (WHERE source <> $2), count(*) FILTER (WHERE source = $2)
             FROM {s}.declared_statuses WHERE user_id = $1 AND source <> 'visibility'"
        ),
        &[pg_sys::UUIDOID, pg_sys::TEXTOID],
    ) };
    static LAST_SET: Statement = const { Statement::new(
        |s| format!("SELECT max(set_at) FROM {s}.declared_statuses WHERE user_id = $1 AND source <> $2"),
        &[pg_sys::UUIDOID, pg_sys::TEXTOID],
    ) };
    static LAST_SEEN: Statement = const { Statement::new(|s| format!("SELECT {s}.last_seen($1)"), &[pg_sys::UUIDOID]) };
    static DELETE_EXPIRED: Statement = const { Statement::new(
        |s| format!(
            "DELETE FROM {s}.declared_statuses
             WHERE user_id = $1 AND source <> $2 AND source <> 'visibility' AND expires_at <= $3"
        ),
        &[pg_sys::UUIDOID, pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID],
    ) };
}

/// Returns the time for a row of this source that is set at `now`: later than that of all others of the user, also where the
/// clock was set back since.
pub fn time_of_setting(user_id: Uuid, source: &[u8], now: Micros) -> Micros {
    let values = [
        Value::Uuid(&user_id),
        source.into_datum().map_or(Value::Null, Value::Datum),
    ];
    let last = LAST_SET.with(|last| last.read(Snapshot::Latest, &values, |rows| rows.first()?.time(1)));
    last.map_or(now, |last| now.max(last.saturating_add(1)))
}

/// Returns the last activity of a user that anybody is shown, as `last_seen()` does.
pub fn last_seen(user_id: Uuid) -> Option<Micros> {
    LAST_SEEN.with(|statement| statement.read(Snapshot::Latest, &[Value::Uuid(&user_id)], |rows| rows.first()?.time(1)))
}

/// From so many rows on, transactions that add rows of the same user wait for each other, so that they count each other's.
/// Few users have as many: those that write for many users at once are not to meet in this.
const COUNTED_TOGETHER: usize = MAX_DECLARATIONS / 4 * 3;
/// How many locks there are for that: users share them, as those of a copy of millions of rows would have no room.
const LOCKS: u32 = 1024;

/// Checks that a user may have a row of this source, beside those of others. Rows that have expired make way. Errors: 53400
/// where there are as many as there may be.
pub fn check(user_id: Uuid, source: &[u8], now: Micros) {
    // No snapshot shows what the running command has written, so the rows of one INSERT would not be counted.
    // SAFETY: allowed wherever a statement may write.
    unsafe { pg_sys::CommandCounterIncrement() };
    let user = Value::Uuid(&user_id);
    let source = source.into_datum().map_or(Value::Null, Value::Datum);
    // Where the source has a row, this one replaces it, or the primary key refuses it.
    let others = || {
        COUNT.with(|count| {
            count.read(Snapshot::Latest, &[user, source], |rows| {
                let row = rows.first();
                let number = |column| row.as_ref().and_then(|row| row.bigint(column)).unwrap_or(0);
                (number(2) == 0).then_some(number(1) as usize)
            })
        })
    };
    let are_below = |limit| others().is_none_or(|others| others < limit);
    if are_below(COUNTED_TOGETHER) {
        return;
    }
    DELETE_EXPIRED.with(|delete| delete.write(&[user, source, Value::Time(now)], |_| ()));
    if are_below(COUNTED_TOGETHER) {
        return;
    }
    lock_number(installed::get().declared, roster::tenant().user_hash(&user_id) % LOCKS);
    if !are_below(MAX_DECLARATIONS) {
        errors::too_many_declarations();
    }
}
