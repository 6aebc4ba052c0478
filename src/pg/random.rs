//! Randomness for what must not be guessed, from the system's secure generator.

use pgrx::pg_sys;
use uuid::Uuid;

/// Random bytes. Errors: XX000 where the system has none to give.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // SAFETY: writes N bytes into N bytes.
    let strong = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), N) };
    if !strong {
        pgrx::ereport!(
            ERROR,
            pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "no random number could be had",
            "The random number generator of the server's operating system does not work."
        );
    }
    bytes
}

/// A random id (UUIDv4). Errors as [`bytes`].
pub fn id() -> Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}
