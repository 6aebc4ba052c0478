//! Tokens and their digests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_presence_fuzz::core::token::{self, Digest};
use pg_presence_fuzz::text;

fuzz_target!(|bytes: &[u8]| {
    let text = text(bytes);
    assert_eq!(token::check(text).is_ok(), (22..=512).contains(&text.len()));
    // What reads as a digest is written the same, and never works as the token of itself.
    if let Some(digest) = Digest::parse(text) {
        assert_eq!(digest.to_text(), text);
        assert_ne!(Digest::of(text), digest);
    }
    let written = Digest::of(text).to_text();
    assert_eq!(Digest::parse(&written), Some(Digest::of(text)));
});
