//! The ids of users whose keys are not UUIDs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_presence_fuzz::rules::claims::parse_uuid;
use pg_presence_fuzz::rules::presence_id::{integer_of, presence_id_int, presence_id_text};
use pg_presence_fuzz::text;

fuzz_target!(|bytes: &[u8]| {
    let key = text(bytes);
    let id = presence_id_text(key);
    match integer_of(id) {
        Some(integer) => {
            assert_eq!(integer.to_string(), key);
            assert_eq!(presence_id_int(integer), id);
        }
        None => {
            assert!(key.parse::<i64>().is_err() || key.parse::<i64>().unwrap().to_string() != key)
        }
    }
    if let Some(uuid) = parse_uuid(key) {
        let digits = key.to_lowercase().replace(['-', '{', '}'], "");
        assert_eq!(uuid.simple().to_string(), digits);
    }
});
