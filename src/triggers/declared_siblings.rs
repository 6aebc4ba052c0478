//! What a row of `declared_statuses` has to do with the others of its user: their number, and which was set last.

use pgrx::{IntoDatum, pg_sys};
use uuid::Uuid;

use super::session_limit::lock_user;
use crate::{
    pg::{errors, installed},
    rules::{declared::MAX_DECLARATIONS, time::Micros},
    store::{
        statement::{Snapshot, Statement},
        value::Value,
    },
};

thread_local! {
    static COUNT: Statement = const { Statement::new(
        |s| format!("SELECT count(*) FROM {s}.declared_statuses WHERE user_id = $1 AND source <> $2"),
        &[pg_sys::UUIDOID, pg_sys::TEXTOID],
    ) };
    static LAST_SET: Statement = const { Statement::new(
        |s| format!("SELECT max(set_at) FROM {s}.declared_statuses WHERE user_id = $1 AND source <> $2"),
        &[pg_sys::UUIDOID, pg_sys::TEXTOID],
    ) };
    static DELETE_EXPIRED: Statement = const { Statement::new(
        |s| format!("DELETE FROM {s}.declared_statuses WHERE user_id = $1 AND source <> $2 AND expires_at <= $3"),
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

/// Checks that a user may have a row of this source, beside those of others. Rows that have expired make way. Errors: 53400
/// where there are as many as there may be.
///
/// From half of the limit on, transactions that add rows of the same user wait for each other, so that they count each
/// other's. Below that they need not, and a copy of millions of rows takes no locks.
pub fn check(user_id: Uuid, source: &[u8], now: Micros) {
    // No snapshot shows what the running command has written, so the rows of one INSERT would not be counted.
    // SAFETY: allowed wherever a statement may write.
    unsafe { pg_sys::CommandCounterIncrement() };
    let others = || {
        let values = [
            Value::Uuid(&user_id),
            source.into_datum().map_or(Value::Null, Value::Datum),
        ];
        COUNT.with(|count| {
            count.read(Snapshot::Latest, &values, |rows| {
                rows.first().and_then(|row| row.bigint(1)).unwrap_or(0) as usize
            })
        })
    };
    if others() < MAX_DECLARATIONS / 2 {
        return;
    }
    lock_user(installed::get().declared, user_id);
    if others() < MAX_DECLARATIONS {
        return;
    }
    let values = [
        Value::Uuid(&user_id),
        source.into_datum().map_or(Value::Null, Value::Datum),
        Value::Time(now),
    ];
    DELETE_EXPIRED.with(|delete| delete.write(&values, |_| ()));
    if others() >= MAX_DECLARATIONS {
        errors::too_many_declarations();
    }
}
