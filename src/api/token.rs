//! Tokens, and the randomness of everything that must not be guessed.

use super::caller;
use crate::core::token::{self, Digest};
use crate::store::statement::Statement;
use crate::store::value::Value;
use crate::{compat, errors};
use pgrx::{pg_extern, pg_sys};
use uuid::Uuid;

thread_local! {
    static ROTATE: Statement = const { Statement::new(
        "UPDATE {s}.user_sessions SET session_token = $2 \
         WHERE id = $1 AND ended_at IS NULL AND expires_at > $3 AND ($4 IS NULL OR auth_id = $4)",
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
    let token = token::generate(random());
    let values = [
        Value::Uuid(&id),
        Value::Text(&Digest::of(&token).to_text()),
        Value::Time(compat::now()),
        owner.as_ref().into(),
    ];
    let rotated = ROTATE.with(|rotate| rotate.write(&values, |rows| rows.count()));
    (rotated > 0).then_some(token)
}

/// Bytes from the system's secure generator.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // SAFETY: writes N bytes into N bytes.
    let strong = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), N) };
    if strong {
        bytes
    } else {
        errors::no_randomness()
    }
}
