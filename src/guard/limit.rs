//! How many sessions a client may have.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::core::time::Micros;
use crate::store::statement::{Sees, Statement};
use crate::store::value::Value;
use crate::{errors, settings};

thread_local! {
    static COUNT: Statement = const { Statement::new(|s| format!("SELECT count(*) FROM (SELECT FROM {s}.user_sessions \
             WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 LIMIT $3) counted"),
        &[pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID],
    ) };
}

/// Refuses one more session, with 53400, where the user has as many that have not ended as
/// `presence.max_sessions_per_user` allows. Sessions that other transactions are just starting are not counted.
pub fn check(user_id: Uuid, now: Micros) {
    // No snapshot shows what the running command has written, so that one INSERT of many rows would not be limited. From
    // the next command number on they are seen; statements in a function of PL/pgSQL count on it in the same way.
    // SAFETY: allowed wherever a statement may write, which is where a session starts.
    unsafe { pg_sys::CommandCounterIncrement() };
    let most = settings::max_sessions_per_user() as i64;
    let values = [Value::Uuid(&user_id), Value::Time(now), Value::Big(most)];
    let counted = COUNT.with(|count| {
        count.read(Sees::Latest, &values, |rows| {
            rows.first().and_then(|row| row.big(1)).unwrap_or(0)
        })
    });
    if counted >= most {
        errors::too_many_sessions();
    }
}
