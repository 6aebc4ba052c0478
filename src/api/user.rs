//! A user who is to be forgotten.

use pgrx::{pg_extern, pg_sys};
use uuid::Uuid;

use super::caller;
use crate::store::{statement::Statement, value::Value};

thread_local! {
    static SESSIONS: Statement = const { Statement::new(
        |s| format!("DELETE FROM {s}.user_sessions WHERE user_id = $1"),
        &[pg_sys::UUIDOID],
    ) };
    // A row that the worker is just adding cannot be seen, and so not be deleted: this waits for it, and has the worker
    // wait for us.
    static HOLD: Statement = const { Statement::new(
        |s| format!(
            "INSERT INTO {s}.user_presence (user_id, status, is_online, changed_at, seq)
             VALUES ($1, 'inactive', false, now(), 0) ON CONFLICT (user_id) DO NOTHING"
        ),
        &[pg_sys::UUIDOID],
    ) };
    static PRESENCE: Statement = const { Statement::new(
        |s| format!("DELETE FROM {s}.user_presence WHERE user_id = $1"),
        &[pg_sys::UUIDOID],
    ) };
    static CHANGES: Statement = const { Statement::new(
        |s| format!("UPDATE {s}.presence_changes SET user_id = NULL, user_key = NULL WHERE user_id = $1"),
        &[pg_sys::UUIDOID],
    ) };
}

/// Erases a user's sessions and presence; the feed keeps its sequence, with the user blanked. For services. True if
/// there was anything to erase. Errors with 42501 for others, with 25006 on a standby.
#[pg_extern(volatile, parallel_unsafe)]
fn forget_user(user_id: Option<pgrx::Uuid>) -> bool {
    caller::require_writable();
    caller::require_service();
    user_id.is_some_and(|id| {
        let id = Uuid::from_bytes(*id);
        let [sessions, held, presence, changes] = [&SESSIONS, &HOLD, &PRESENCE, &CHANGES].map(|statement| {
            let values = [Value::Uuid(&id)];
            statement.with(|statement| statement.write(&values, |rows| rows.count()))
        });
        sessions + (presence - held) + changes > 0
    })
}
