//! The name of the claim that counts, whatever an administrator has made it: it is found as it was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_presence_fuzz::core::claims;
use pg_presence_fuzz::text;

fuzz_target!(|bytes: &[u8]| {
    let name = text(bytes);
    let other = format!("{name}x");
    let json =
        serde_json::json!({ name: "own", "": "empty", other: "other", "a": { name: "deeper" } })
            .to_string();
    let expected = if name.is_empty() { "empty" } else { "own" };
    let found = claims::claim(json.as_bytes(), name);
    // The name "a" is the object's too.
    assert_eq!(found.as_deref(), (name != "a").then_some(expected));
    let cut = &json.as_bytes()[..json.len() - 1];
    assert_eq!(claims::claim(cut, name), None);
});
