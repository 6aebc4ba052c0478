//! Erases a user.

use super::{args::to_uuid, caller};
use crate::{
    pg::errors,
    store::{own_write, statement::Statement, value::Value},
    triggers::capture::forget_at_commit,
};
use pgrx::{pg_extern, pg_sys};

thread_local! {
    static DELETE_DECLARED: Statement = const { Statement::new(
        |s| format!("DELETE FROM {s}.declared_statuses WHERE user_id = $1"),
        &[pg_sys::UUIDOID],
    ) };
    static DELETE_SESSIONS: Statement = const { Statement::new(
        |s| format!("DELETE FROM {s}.user_sessions WHERE user_id = $1"),
        &[pg_sys::UUIDOID],
    ) };
    // A row that the worker has inserted and not committed is invisible, and so would not be deleted. This waits for
    // its commit, and makes the worker wait for ours. So the worker has committed what it writes of the user before the
    // changes are blanked, or else finds out that there is no such user any more (see store::feed::write).
    static LOCK_PRESENCE: Statement = const { Statement::new(
        |s| format!(
            "INSERT INTO {s}.user_presence (user_id, status, is_online, changed_at, seq)
             VALUES ($1, 'inactive', false, now(), 0) ON CONFLICT (user_id) DO NOTHING"
        ),
        &[pg_sys::UUIDOID],
    ) };
    static DELETE_PRESENCE: Statement = const { Statement::new(
        |s| format!("DELETE FROM {s}.user_presence WHERE user_id = $1"),
        &[pg_sys::UUIDOID],
    ) };
    static BLANK_CHANGES: Statement = const { Statement::new(
        |s| format!("UPDATE {s}.presence_changes SET user_id = NULL, user_key = NULL, details = false WHERE user_id = $1"),
        &[pg_sys::UUIDOID],
    ) };
}

/// Erases a user's sessions, presence and declared statuses; the feed keeps the rows of its changes, with the user blanked.
/// Returns whether there was anything to erase. Errors: 42501 where the caller is not a service, 25006 on a standby, 55000
/// where the library is not preloaded, or a rule or trigger keeps the user's row.
#[pg_extern(volatile, parallel_unsafe)]
fn forget_user(user_id: Option<pgrx::Uuid>) -> bool {
    caller::require_writable();
    caller::require_service();
    user_id.is_some_and(|id| {
        let id = to_uuid(id);
        let statements = [
            &DELETE_DECLARED,
            &DELETE_SESSIONS,
            &LOCK_PRESENCE,
            &DELETE_PRESENCE,
            &BLANK_CHANGES,
        ];
        let [declared, sessions, inserted, presence, changes] = statements.map(|statement| {
            let values = [Value::Uuid(&id)];
            statement.with(|statement| own_write::run_on_presence(|| statement.write(&values, |rows| rows.count())))
        });
        // A rule or trigger of others may keep even the row that was just inserted.
        let Some(presence) = presence.checked_sub(inserted) else {
            errors::damaged_install();
        };
        forget_at_commit(id);
        declared + sessions + presence + changes > 0
    })
}
