//! The claim's name may be any text that an administrator has set: the claim of that name is found.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_presence_fuzz::rules::claims;
use pg_presence_fuzz::text;

fuzz_target!(|bytes: &[u8]| {
    let name = text(bytes);
    let other = format!("{name}x");
    let json = serde_json::json!({ name: "own", "": "empty", other: "other", "a": { name: "deeper" } }).to_string();
    let expected = if name.is_empty() { "empty" } else { "own" };
    let found = claims::claim(json.as_bytes(), name);
    // The name "a" is also that of the nested object.
    assert_eq!(found.as_deref(), (name != "a").then_some(expected));
    let cut = &json.as_bytes()[..json.len() - 1];
    assert_eq!(claims::claim(cut, name), None);
});
