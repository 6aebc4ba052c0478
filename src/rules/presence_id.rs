//! Ids for users whose own id is no uuid.
//!
//! An integer becomes a UUIDv8 that holds it, tagged so that no other uuid is taken for one:
//! `presence_id(42)` is `70726573-656e-8ce0-8000-00000000002a`, where `70726573656e` spells "presen". The integer's top two
//! bits are the lowest of the third group, the other 62 follow the variant. Any other text becomes a UUIDv5.

use uuid::Uuid;

/// Where the UUIDv5 of text keys are made. It must never change: ids already stored depend on it.
const NAMESPACE: Uuid = Uuid::from_u128(0x366cb3ca_660a_479b_b215_9750ad52feb1);

/// A uuid with everything but the integer's bits.
const TAG: u128 = 0x70726573_656e_8ce0_8000_000000000000;
const LOW_BITS: u32 = 62;
const LOW: u64 = (1 << LOW_BITS) - 1;
/// The variant stands between the integer's top two bits and the rest.
const HIGH_SHIFT: u32 = 64;

/// The id of a user known by an integer.
pub const fn presence_id_int(key: i64) -> Uuid {
    let bits = key as u64;
    let high = (bits >> LOW_BITS) as u128;
    Uuid::from_u128(TAG | high << HIGH_SHIFT | (bits & LOW) as u128)
}

/// The id of a user known by a text. The text an integer is printed as gives the integer's id.
pub fn presence_id_text(key: &str) -> Uuid {
    match canonical_integer(key) {
        Some(integer) => presence_id_int(integer),
        None => Uuid::new_v5(&NAMESPACE, key.as_bytes()),
    }
}

/// The integer an id was made of, if it was made of one.
pub const fn integer_of(id: Uuid) -> Option<i64> {
    let bits = id.as_u128();
    let integer = ((bits >> HIGH_SHIFT) as u64 & 3) << LOW_BITS | (bits as u64 & LOW);
    let integer = integer as i64;
    if presence_id_int(integer).as_u128() == bits {
        Some(integer)
    } else {
        None
    }
}

/// Whether a user who has a key has one that cannot be derived from its id.
pub const fn is_keyed(id: Uuid, has_key: bool) -> bool {
    has_key && integer_of(id).is_none()
}

/// Reads an integer as it is printed: no sign but `-`, no leading zero, no space.
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
    fn ids_already_stored_never_change() {
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
    fn only_what_an_integer_prints_as_is_one() {
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
    fn a_text_that_looks_like_a_uuid_is_just_text() {
        let text = "70726573-656e-8ce0-8000-00000000002a";
        assert_ne!(presence_id_text(text).to_string(), text);
        assert_eq!(presence_id_text(text).get_version_num(), 5);
    }

    proptest! {
        #[test]
        fn an_integer_reads_back_and_equals_its_text(key in any::<i64>()) {
            let id = presence_id_int(key);
            prop_assert_eq!(integer_of(id), Some(key));
            prop_assert_eq!(presence_id_text(&key.to_string()), id);
            prop_assert_eq!(id.get_version_num(), 8);
            prop_assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        }

        #[test]
        fn no_other_uuid_is_taken_for_an_integer(key in any::<i64>(), bit in 0..128u32, other in any::<u128>()) {
            let flipped = Uuid::from_u128(presence_id_int(key).as_u128() ^ 1 << bit);
            let integer_bit = bit < 62 || (64..66).contains(&bit);
            prop_assert_eq!(integer_of(flipped).is_some(), integer_bit);
            if let Some(integer) = integer_of(Uuid::from_u128(other)) {
                prop_assert_eq!(presence_id_int(integer).as_u128(), other);
            }
        }

        #[test]
        fn texts_that_differ_have_ids_that_differ(a in ".*", b in ".*") {
            prop_assert_eq!(presence_id_text(&a) == presence_id_text(&b), a == b);
        }
    }
}
