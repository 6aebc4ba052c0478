//! Reads a claim of a JWT, whose claims a gateway has stored in `request.jwt.claims`.
//!
//! This runs on every call of a client, so it tries [`fast_json`] before [`full_json`]. Neither of them copies other
//! claims, and the value is borrowed unless it contains escapes.

use std::borrow::Cow;

use uuid::Uuid;

use super::{fast_json, full_json};

/// The value of a claim that can identify a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
}

/// Reads a top-level claim.
///
/// If the name occurs several times, the last one counts, as in jsonb. Returns `None` if the JSON is malformed or not
/// an object, or if the claim is missing, is neither a string nor a 64-bit integer, or contains a NUL, which a text in
/// PostgreSQL cannot.
pub fn read<'a>(json: &'a [u8], name: &str) -> Option<Claim<'a>> {
    let text = |text| str::from_utf8(text).map(|text| Claim::Text(Cow::Borrowed(text)));
    match fast_json::member(json, name) {
        Ok(Some(fast_json::Value::Text(found))) => text(found).ok(),
        Ok(Some(fast_json::Value::Integer(integer))) => Some(Claim::Integer(integer)),
        Ok(Some(fast_json::Value::Other) | None) => None,
        Err(fast_json::NeedsFullParser) => match full_json::member(json, name)? {
            full_json::Value::Text(text) => (!text.contains('\0')).then_some(Claim::Text(text)),
            full_json::Value::Integer(integer) => Some(Claim::Integer(integer)),
            full_json::Value::Other => None,
        },
    }
}

/// Like [`read`], but only for a claim that is a string.
pub fn claim<'a>(json: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    match read(json, name)? {
        Claim::Text(text) => Some(text),
        Claim::Integer(_) => None,
    }
}

/// Like [`read`], but returns an integer as text.
pub fn claim_text<'a>(json: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    match read(json, name)? {
        Claim::Text(text) => Some(text),
        Claim::Integer(integer) => Some(Cow::Owned(integer.to_string())),
    }
}

/// Parses a UUID: 32 hexadecimal digits in either case, with or without the four hyphens, the form with hyphens also in
/// braces. PostgreSQL accepts all of these forms.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    match text.len() {
        32 | 36 | 38 => Uuid::try_parse(text).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SUPABASE: &str = r#"{"aud":"authenticated","exp":1763910000,"sub":"7c3f3b0e-2a51-4a8e-9d0e-7a5f4c2b1a00",
        "email":"a@example.com","app_metadata":{"provider":"email","providers":["email"]},
        "user_metadata":{"sub":"not this one"},"role":"authenticated","aal":"aal1","is_anonymous":false}"#;

    fn string(json: &str) -> Option<Cow<'_, str>> {
        claim(json.as_bytes(), "sub")
    }

    fn text(json: &str) -> Option<String> {
        claim_text(json.as_bytes(), "sub").map(Cow::into_owned)
    }

    #[test]
    fn the_claim_is_found_at_the_top_level_only() {
        assert_eq!(
            string(SUPABASE).as_deref(),
            Some("7c3f3b0e-2a51-4a8e-9d0e-7a5f4c2b1a00")
        );
        assert_eq!(string(r#"{"user":{"sub":"a"}}"#), None);
        assert_eq!(claim(SUPABASE.as_bytes(), "role").as_deref(), Some("authenticated"));
        assert_eq!(
            claim(br#"{"https://a.example/id":"x"}"#, "https://a.example/id").as_deref(),
            Some("x")
        );
    }

    #[test]
    fn only_the_exact_name_counts() {
        for json in [
            r#"{"Sub":"a"}"#,
            r#"{"sub ":"a"}"#,
            r#"{"su":"a"}"#,
            r#"{"subs":"a"}"#,
            r#"{"sub\u0000":"a"}"#,
        ] {
            assert_eq!(string(json), None, "{json}");
        }
        assert_eq!(string(r#"{"s\u0075b":"a"}"#).as_deref(), Some("a"));
    }

    #[test]
    fn an_unescaped_value_is_borrowed_and_an_escaped_one_decoded() {
        assert!(matches!(string(SUPABASE), Some(Cow::Borrowed(_))));
        assert_eq!(string(r#"{"sub":"a\"\u00e9\ud83d\ude00"}"#).as_deref(), Some("a\"é😀"));
        assert_eq!(string(r#"{"sub":""}"#).as_deref(), Some(""));
    }

    #[test]
    fn the_last_duplicate_counts_whatever_it_is() {
        assert_eq!(string(r#"{"sub":"a","sub":"b"}"#).as_deref(), Some("b"));
        for last in ["null", "true", "[]", "{}", "1.5"] {
            assert_eq!(text(&format!(r#"{{"sub":"a","sub":{last}}}"#)), None, "{last}");
        }
        assert_eq!(string(r#"{"sub":"a","sub":1}"#), None);
        assert_eq!(string(r#"{"sub":1,"s\u0075b":"b"}"#).as_deref(), Some("b"));
    }

    #[test]
    fn an_integer_counts_as_text_and_nothing_else_does() {
        assert_eq!(text(r#"{"sub":42}"#).as_deref(), Some("42"));
        assert_eq!(
            text(r#"{"sub":-9223372036854775808}"#).as_deref(),
            Some("-9223372036854775808")
        );
        assert_eq!(text(r#"{"sub":"auth0|abc"}"#).as_deref(), Some("auth0|abc"));
        assert_eq!(string(r#"{"sub":42}"#), None);
        for number in [
            "42.0",
            "1e2",
            "-0",
            "9223372036854775808",
            "1e999",
            "99999999999999999999999999",
        ] {
            assert_eq!(text(&format!(r#"{{"sub":{number}}}"#)), None, "{number}");
        }
    }

    #[test]
    fn malformed_json_contains_no_claim() {
        for json in [
            "",
            " ",
            "null",
            "42",
            "\"sub\"",
            "[]",
            r#"["sub","a"]"#,
            "{",
            r#"{"sub"}"#,
            r#"{"sub":}"#,
            r#"{"sub":"a""#,
            r#"{"sub":"a"}}"#,
            r#"{"sub":"a"}x"#,
            r#"{"sub":"a"},{"sub":"b"}"#,
            r#"{"sub":"a",}"#,
            r#"{'sub':'a'}"#,
            r#"{sub:"a"}"#,
            r#"{"sub":"a" "b":1}"#,
            r#"{"sub":"\x"}"#,
            r#"{"sub":"\u12"}"#,
            r#"{"sub":"\ud800"}"#,
            "{\"sub\":\"a\nb\"}",
            r#"{"sub":01}"#,
            r#"{"sub":"a","b":01}"#,
            r#"{"sub":"a","b":nul}"#,
            r#"{"sub":NaN}"#,
            "\u{feff}{\"sub\":\"a\"}",
            "{\"sub\":\"a\"}\0",
        ] {
            assert_eq!(text(json), None, "{json}");
        }
        assert_eq!(claim(b"{\"sub\":\"\xff\"}", "sub"), None);
        assert_eq!(claim(b"{\"\xff\":1,\"sub\":\"a\"}", "sub"), None);
    }

    #[test]
    fn a_claim_with_a_nul_is_ignored() {
        assert_eq!(text(r#"{"sub":"a\u0000b"}"#), None);
        assert_eq!(text("{\"sub\":\"a\0b\"}"), None);
    }

    #[test]
    fn deep_nesting_neither_crashes_nor_hides_the_claim() {
        let deep = 500_000;
        let (open, close) = ("[".repeat(deep), "]".repeat(deep));
        assert_eq!(
            string(&format!(r#"{{"a":{open}{close},"sub":"a"}}"#)).as_deref(),
            Some("a")
        );
        assert_eq!(string(&format!(r#"{{"a":{open},"sub":"a"}}"#)), None);
        assert_eq!(string(&format!(r#"{{"sub":{open}{close}}}"#)), None);
        assert_eq!(string(&r#"{"a":"#.repeat(deep)), None);
    }

    #[test]
    fn a_megabyte_of_claims_is_read() {
        let long = "x".repeat(1 << 20);
        assert_eq!(string(&format!(r#"{{"a":"{long}","sub":"a"}}"#)).as_deref(), Some("a"));
        assert_eq!(
            string(&format!(r#"{{"sub":"{long}"}}"#)).map(|sub| sub.len()),
            Some(1 << 20)
        );
        assert_eq!(string(&format!(r#"{{"sub":"{}"#, "\\u0061".repeat(1 << 18))), None);
    }

    #[test]
    fn a_uuid_is_parsed_as_in_postgresql() {
        let id = Uuid::from_u128(0xa0eebc99_9c0b_4ef8_bb6d_6bb9bd380a11);
        for text in [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
        ] {
            assert_eq!(parse_uuid(text), Some(id), "{text}");
        }
        for text in [
            "",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111",
            "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc999-c0b-4ef8-bb6d-6bb9bd380a11",
            "urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "[a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11]",
            "éééééééééééééééééé",
        ] {
            assert_eq!(parse_uuid(text), None, "{text}");
        }
    }

    /// Pieces of JSON with duplicate names, escapes and syntax errors, which random bytes would hardly contain.
    fn nearly_json() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\"sub\"",
            "\"s\\u0075b\"",
            "\"a\"",
            "\"\\ud83d\\ude00\"",
            "\\u0000",
            "\"sub\":",
            "\"sub\":\"b\"",
            "42",
            "-1",
            "1.5",
            "1e9",
            "null",
            "true",
            " ",
            "\n",
            "é",
            "\0",
            "{\"sub\":\"c\"}",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// Returns the claim as jsonb would, from the tree of serde_json, in which the last duplicate counts too.
    fn expected(json: &str) -> Option<String> {
        let tree: serde_json::Value = serde_json::from_str(json).ok()?;
        let found = match tree.as_object()?.get("sub")? {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Number(number) => number.as_i64()?.to_string(),
            _ => return None,
        };
        (!found.contains('\0')).then_some(found)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn the_claim_is_the_one_in_the_full_tree(json in nearly_json(), wrap in any::<bool>()) {
            let json = if wrap { format!("{{{json}}}") } else { json };
            if serde_json::from_str::<serde_json::Value>(&json).is_ok() {
                prop_assert_eq!(text(&json), expected(&json));
            }
        }

        #[test]
        fn an_object_is_read_as_by_the_full_parser(
            entries in prop::collection::vec((
                prop::sample::select(vec!["sub", "s\\u0075b", "role", "a"]),
                prop::sample::select(vec!["\"x\"", "\"\\n\"", "7", "-7", "7.5", "null", "[{\"sub\":\"y\"}]", "{\"sub\":1}"]),
            ), 0..6),
        ) {
            let body: Vec<_> = entries.iter().map(|(name, value)| format!("\"{name}\" : {value}")).collect();
            let json = format!(" {{ {} }} ", body.join(" , "));
            prop_assert_eq!(text(&json), expected(&json));
        }

        #[test]
        fn no_bytes_panic(json in prop::collection::vec(any::<u8>(), 0..256), name in ".{0,8}") {
            read(&json, &name);
        }

        #[test]
        fn a_truncated_or_changed_object_never_panics(at in 0..SUPABASE.len(), byte in any::<u8>()) {
            prop_assert_eq!(claim(&SUPABASE.as_bytes()[..at], "sub"), None);
            let mut changed = SUPABASE.as_bytes().to_vec();
            changed[at] = byte;
            read(&changed, "sub");
        }

        #[test]
        fn every_string_is_read_unchanged(value in any::<String>()) {
            let json = serde_json::json!({ "a": 1, "sub": value }).to_string();
            prop_assert_eq!(text(&json), (!value.contains('\0')).then_some(value));
        }
    }
}
