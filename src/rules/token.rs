//! Session tokens and their digests. A token is a secret, its digest is not.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// The length in bytes of a token chosen by a client.
pub const LENGTH: std::ops::RangeInclusive<usize> = 22..=512;

/// The prefix of a digest's text.
const PREFIX: &str = "sha256:";

/// The SHA-256 digest of a token, which is stored in its place.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of a token. The text of a digest is treated as any other token.
    pub fn of(token: &str) -> Digest {
        Digest(Sha256::digest(token.as_bytes()).into())
    }

    /// Parses `sha256:` followed by 64 lower-case hexadecimal digits, and no other form.
    pub fn parse(text: &str) -> Option<Digest> {
        let digits = text.strip_prefix(PREFIX)?;
        if digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return None;
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).ok()?;
        Some(Digest(bytes))
    }

    /// Returns the digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// Returns the bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the text that is stored in `session_token`.
    pub fn to_text(self) -> String {
        self.to_string()
    }

    /// Compares in constant time, as `==` does.
    pub fn ct_eq(&self, other: &Digest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Digest) -> bool {
        self.ct_eq(other)
    }
}

impl Eq for Digest {}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(PREFIX)?;
        f.write_str(str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The error for a token chosen by a client that is too short to be a secret, or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weak;

/// Returns a token of 256 random bits: 43 URL-safe characters.
pub fn generate(random: [u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(random)
}

/// Checks the length of a token chosen by a client.
pub fn check(token: &str) -> Result<(), Weak> {
    if LENGTH.contains(&token.len()) {
        Ok(())
    } else {
        Err(Weak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_digest_is_the_sha256_of_the_token() {
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of("abc").to_text(), text);
        assert_eq!(Digest::parse(text), Some(Digest::of("abc")));
    }

    #[test]
    fn only_the_exact_form_of_a_digest_is_parsed() {
        let text = Digest::of("abc").to_text();
        for wrong in [
            "",
            "sha256:",
            &text[1..],
            &text[..70],
            &text.to_uppercase(),
            &text.replace('b', "B"),
            &text.replace("sha256", "sha512"),
            &text.replace('b', "g"),
            &format!("{text}0"),
            &format!(" {text}"),
        ] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_digest_never_works_as_a_token() {
        let digest = Digest::of("a session token of somebody");
        assert_ne!(Digest::of(&digest.to_text()), digest);
    }

    #[test]
    fn a_token_is_43_url_safe_characters() {
        assert_eq!(generate([0; 32]), "A".repeat(43));
        assert_eq!(generate([255; 32]), format!("{}8", "_".repeat(42)));
    }

    #[test]
    fn the_length_of_a_token_is_checked_in_bytes() {
        assert_eq!(check(&"x".repeat(21)), Err(Weak));
        assert_eq!(check(&"x".repeat(22)), Ok(()));
        assert_eq!(check(&"é".repeat(11)), Ok(()));
        assert_eq!(check(&"x".repeat(512)), Ok(()));
        assert_eq!(check(&"x".repeat(513)), Err(Weak));
        assert_eq!(check(&"é".repeat(257)), Err(Weak));
    }

    proptest! {
        #[test]
        fn every_digest_parses_back(bytes in any::<[u8; 32]>()) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(Digest::parse(&digest.to_text()), Some(digest));
        }

        #[test]
        fn different_bits_make_different_tokens(a in any::<[u8; 32]>(), b in any::<[u8; 32]>()) {
            prop_assert_eq!(generate(a) == generate(b), a == b);
            prop_assert_eq!(check(&generate(a)), Ok(()));
            prop_assert!(generate(a).bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            Digest::parse(&text);
            Digest::parse(&format!("sha256:{text}"));
        }
    }
}
