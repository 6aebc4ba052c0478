//! Cryptographically secure random values.

use pgrx::pg_sys;
use uuid::Uuid;

/// Returns random bytes. Errors with XX000 if the operating system cannot generate them.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // SAFETY: writes N bytes to an array of N bytes.
    let strong = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), N) };
    if !strong {
        pgrx::ereport!(
            ERROR,
            pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "could not generate random values",
            "The random number generator of the operating system failed."
        );
    }
    bytes
}

/// Returns a random UUID of version 4. Errors like [`bytes`].
pub fn id() -> Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}
