//! Cryptographically secure random values.

use pgrx::pg_sys;
use uuid::Uuid;

use super::errors;

/// Returns random bytes; `None` if the operating system cannot generate them.
pub fn try_bytes<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: writes N bytes to an array of N bytes.
    unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), N) }.then_some(bytes)
}

/// Returns random bytes. Errors with XX000 if the operating system cannot generate them.
pub fn bytes<const N: usize>() -> [u8; N] {
    try_bytes().unwrap_or_else(|| errors::no_random_values())
}

/// Returns a random UUID of version 4. Errors like [`bytes`].
pub fn id() -> Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}

/// Returns a random UUID and other random bytes, from one call of the generator. Errors like [`bytes`].
pub fn id_and_bytes() -> (Uuid, [u8; 32]) {
    let random: [u8; 48] = bytes();
    let (mut id, mut other) = ([0; 16], [0; 32]);
    id.copy_from_slice(&random[..16]);
    other.copy_from_slice(&random[16..]);
    (uuid::Builder::from_random_bytes(id).into_uuid(), other)
}
