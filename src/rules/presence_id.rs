//! Ids for users whose application ids are not UUIDs.
//!
//! An integer is mapped to a UUIDv8 that contains it and a tag, so that it can be recovered: `presence_id(42)` is
//! `70726573-656e-8ce0-8000-00000000002a`, where `70726573656e` is "presen" in ASCII. The top two bits of the integer
//! are the lowest bits of the third group; the other 62 follow the variant. Any other text is mapped to a UUIDv5.

use uuid::Uuid;

/// The namespace of the UUIDv5 of text keys. It must never change, as applications store the ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x366cb3ca_660a_479b_b215_9750ad52feb1);

/// The UUID of an integer, without the bits of the integer.
const TAG: u128 = 0x70726573_656e_8ce0_8000_000000000000;
/// The number of bits of the integer that follow the variant.
const LOW_BITS: u32 = 62;
const LOW_MASK: u64 = (1 << LOW_BITS) - 1;
/// The position of the integer's top two bits. The variant is between them and the other bits.
const HIGH_SHIFT: u32 = 64;

/// Returns the id of a user whose application id is an integer.
pub const fn presence_id_int(number: i64) -> Uuid {
    let bits = number as u64;
    let high = (bits >> LOW_BITS) as u128;
    Uuid::from_u128(TAG | high << HIGH_SHIFT | (bits & LOW_MASK) as u128)
}

/// Returns the id of a user whose application id is a text. An integer in its canonical form has the id of the integer.
pub fn presence_id_text(key: &str) -> Uuid {
    match canonical_integer(key) {
        Some(integer) => presence_id_int(integer),
        None => Uuid::new_v5(&NAMESPACE, key.as_bytes()),
    }
}

/// Returns the integer that an id contains, if it is the id of an integer.
pub const fn integer_of(id: Uuid) -> Option<i64> {
    let bits = id.as_u128();
    let integer = ((bits >> HIGH_SHIFT) as u64 & 3) << LOW_BITS | (bits as u64 & LOW_MASK);
    let integer = integer as i64;
    if presence_id_int(integer).as_u128() == bits {
        Some(integer)
    } else {
        None
    }
}

/// Returns whether a user has a key that cannot be recovered from the id.
pub const fn is_keyed(id: Uuid, has_key: bool) -> bool {
    has_key && integer_of(id).is_none()
}

/// Parses an integer in its canonical form: no sign but `-`, no leading zeros, no spaces.
fn canonical_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = match digits.as_bytes() {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ids_of_integers_never_change() {
        for (key, id) in [
            ("0", "70726573-656e-8ce0-8000-000000000000"),
            ("42", "70726573-656e-8ce0-8000-00000000002a"),
            ("-1", "70726573-656e-8ce3-bfff-ffffffffffff"),
            ("9223372036854775807", "70726573-656e-8ce1-bfff-ffffffffffff"),
            ("-9223372036854775808", "70726573-656e-8ce2-8000-000000000000"),
        ] {
            assert_eq!(presence_id_text(key).to_string(), id, "{key}");
        }
    }

    #[test]
    fn only_the_canonical_form_of_an_integer_is_one() {
        for key in [
            "",
            "-",
            "+42",
            "042",
            "-0",
            "00",
            "-042",
            " 42",
            "42 ",
            "42\n",
            "4_2",
            "42.0",
            "1e3",
            "٤٢",
            "０",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999999",
        ] {
            assert_eq!(presence_id_text(key).get_version_num(), 5, "{key}");
            assert_eq!(integer_of(presence_id_text(key)), None, "{key}");
        }
    }

    #[test]
    fn the_text_of_a_uuid_is_treated_as_any_other() {
        let text = "70726573-656e-8ce0-8000-00000000002a";
        assert_ne!(presence_id_text(text).to_string(), text);
        assert_eq!(presence_id_text(text).get_version_num(), 5);
    }

    proptest! {
        #[test]
        fn an_integer_can_be_recovered_and_has_the_id_of_its_text(key in any::<i64>()) {
            let id = presence_id_int(key);
            prop_assert_eq!(integer_of(id), Some(key));
            prop_assert_eq!(presence_id_text(&key.to_string()), id);
            prop_assert_eq!(id.get_version_num(), 8);
            prop_assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        }

        #[test]
        fn no_other_uuid_contains_an_integer(key in any::<i64>(), bit in 0..128u32, other in any::<u128>()) {
            let flipped = Uuid::from_u128(presence_id_int(key).as_u128() ^ 1 << bit);
            let integer_bit = bit < 62 || (64..66).contains(&bit);
            prop_assert_eq!(integer_of(flipped).is_some(), integer_bit);
            if let Some(integer) = integer_of(Uuid::from_u128(other)) {
                prop_assert_eq!(presence_id_int(integer).as_u128(), other);
            }
        }

        #[test]
        fn different_texts_have_different_ids(a in ".*", b in ".*") {
            prop_assert_eq!(presence_id_text(&a) == presence_id_text(&b), a == b);
        }
    }
}
