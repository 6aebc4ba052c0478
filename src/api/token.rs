//! New tokens for old sessions.

use super::caller;
use crate::core::token::{self, Digest};
use crate::store::statement::Statement;
use crate::store::value::Value;
use crate::{compat, random};
use pgrx::{pg_extern, pg_sys};
use uuid::Uuid;

thread_local! {
    static ROTATE: Statement = const { Statement::new(
        |s| format!(
            "UPDATE {s}.user_sessions SET session_token = $2 \
             WHERE id = $1 AND ended_at IS NULL AND expires_at > $3 AND ($4 IS NULL OR auth_id = $4)"
        ),
        &[pg_sys::UUIDOID, pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID, pg_sys::UUIDOID],
    ) };
}

/// Gives a session a new token and returns it; the old one stops at commit. NULL if there is no such session, or it has
/// ended or is not the caller's. Errors with 25006 on a standby.
#[pg_extern(volatile, parallel_unsafe)]
fn rotate_session_token(session_id: Option<pgrx::Uuid>) -> Option<String> {
    caller::must_write();
    let owner = caller::filter()?;
    let id = Uuid::from_bytes(*session_id?);
    let token = token::generate(random::bytes());
    let values = [
        Value::Uuid(&id),
        Value::Text(&Digest::of(&token).to_text()),
        Value::Time(compat::now()),
        owner.as_ref().into(),
    ];
    let rotated = ROTATE.with(|rotate| rotate.write(&values, |rows| rows.count()));
    (rotated > 0).then_some(token)
}
