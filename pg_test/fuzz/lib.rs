//! The extension's pure code, without PostgreSQL, for the targets.

#[path = "../../src/core/mod.rs"]
pub mod core;

/// A text out of bytes: what of them is UTF-8, as the server hands us no other.
pub fn text(bytes: &[u8]) -> &str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}
