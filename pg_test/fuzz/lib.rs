//! The extension's rules, which need no PostgreSQL, for the fuzz targets.

#[path = "../../src/rules/mod.rs"]
pub mod rules;

/// Returns the bytes up to the first that is not UTF-8, as the server passes no other text.
pub fn text(bytes: &[u8]) -> &str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}
