//! Tokens and their digests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_presence_fuzz::rules::token::{self, Digest};
use pg_presence_fuzz::text;

fuzz_target!(|bytes: &[u8]| {
    let text = text(bytes);
    assert_eq!(token::check(text).is_ok(), (22..=512).contains(&text.len()));
    // A digest is written as it is read, and never works as its own token.
    if let Some(digest) = Digest::parse(text) {
        assert_eq!(digest.to_text(), text);
        assert_ne!(Digest::of(text), digest);
    }
    let written = Digest::of(text).to_text();
    assert_eq!(Digest::parse(&written), Some(Digest::of(text)));
});
