//! Session tokens: their rotation and their digests.

use super::{args::to_uuid, caller};
use crate::{
    pg::{compat, random, text::Text},
    rules::token::{self, Digest},
    store::{statement::Statement, value::Value},
};
use pgrx::{pg_extern, pg_sys};

thread_local! {
    static ROTATE: Statement = const { Statement::new(
        |s| format!(
            "UPDATE {s}.user_sessions SET session_token = $2 \
             WHERE id = $1 AND ended_at IS NULL AND expires_at > $3 AND ($4 IS NULL OR auth_id = $4)"
        ),
        &[pg_sys::UUIDOID, pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID, pg_sys::UUIDOID],
    ) };
}

/// Replaces the token of a session, at commit, and returns the new one; NULL where there is no such session, it has
/// ended, or it is not the caller's. Errors: 25006 on a standby, 55000 where the library is not preloaded.
#[pg_extern(volatile, parallel_unsafe)]
fn rotate_session_token(session_id: Option<pgrx::Uuid>) -> Option<String> {
    caller::require_writable();
    let owner = caller::owner_filter()?;
    let id = to_uuid(session_id?);
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

/// Returns the digest of a token, as in `user_sessions.session_token`. Errors: 55000 where the library is not
/// preloaded.
#[pg_extern(immutable, strict, parallel_safe)]
fn token_digest(token: Text) -> String {
    caller::require_preload();
    Digest::of(&token).to_text()
}
