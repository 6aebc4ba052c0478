//! The claims of a JWT are read as a full JSON parser would read them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_presence_fuzz::rules::claims::{self, Claim};
use serde_json::Value;

fuzz_target!(|json: &[u8]| {
    let found = claims::read(json, "sub");
    // The full parser refuses deep nesting, which the fast one reads.
    let Ok(tree) = serde_json::from_slice::<Value>(json) else {
        if let Some(Claim::Text(text)) = found {
            assert!(!text.contains('\0'));
        }
        return;
    };
    let expected = match tree.as_object().and_then(|object| object.get("sub")) {
        Some(Value::String(text)) if !text.contains('\0') => Some(text.clone()),
        Some(Value::Number(number)) => number.as_i64().map(|number| number.to_string()),
        _ => None,
    };
    assert_eq!(claims::claim_text(json, "sub").map(String::from), expected);
    if let Some(id) = claims::claim(json, "sub").and_then(|text| claims::parse_uuid(&text)) {
        assert_eq!(claims::parse_uuid(&id.to_string()), Some(id));
    }
});
