//! How many sessions a client may have.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    pg::{errors, installed},
    roster,
    rules::time::Micros,
    settings,
    store::{
        statement::{Snapshot, Statement},
        value::Value,
    },
};

thread_local! {
    static COUNT: Statement = const { Statement::new(
        |s| format!(
            "SELECT count(*) FROM (SELECT FROM {s}.user_sessions \
             WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 LIMIT $3) counted"
        ),
        &[pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID],
    ) };
}

/// Refuses one more session, with 53400, where the user has as many that have not ended as
/// `presence.max_sessions_per_user` allows. Waits for other transactions that start sessions of the same user.
pub fn check(user_id: Uuid, now: Micros) {
    wait_for_others(user_id);
    // No snapshot shows what the running command has written, so that one INSERT of many rows would not be limited. From
    // the next command number on they are seen; statements in a function of PL/pgSQL count on it in the same way.
    // SAFETY: allowed wherever a statement may write, which is where a session starts.
    unsafe { pg_sys::CommandCounterIncrement() };
    let most = settings::max_sessions_per_user() as i64;
    let values = [Value::Uuid(&user_id), Value::Time(now), Value::Bigint(most)];
    let counted = COUNT.with(|count| {
        count.read(Snapshot::Latest, &values, |rows| {
            rows.first().and_then(|row| row.bigint(1)).unwrap_or(0)
        })
    });
    if counted >= most {
        errors::too_many_sessions();
    }
}

/// Takes a lock, until the end of the transaction, that only the starts of one user's sessions by clients share: what
/// two of them have started and not committed neither could count.
///
/// SQL has no command that takes it, so nobody can keep others from signing in, as with an advisory lock. Its number
/// in `pg_locks` does not tell whose it is.
fn wait_for_others(user_id: Uuid) {
    let sessions = installed::get().sessions;
    let number = roster::tenant().user_hash(&user_id);
    // SAFETY: an ordinary lock, released at the end of the transaction, on something that PostgreSQL itself never
    // locks: an object of the class "our table".
    unsafe {
        pg_sys::LockDatabaseObject(
            sessions,
            pg_sys::Oid::from(number),
            0,
            pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
        );
    }
}
