//! Notification payloads: whatever the keys are, each payload fits, parses, and no change is lost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_presence_fuzz::rules::payload::{Alphabet, Change, pack};
use pg_presence_fuzz::rules::presence_id::presence_id_text;
use pg_presence_fuzz::rules::status::Status;
use pg_presence_fuzz::text;

fuzz_target!(|bytes: &[u8]| {
    let (&alphabet, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let alphabet = if alphabet & 1 == 0 {
        Alphabet::Unicode
    } else {
        Alphabet::Ascii
    };
    // A change from each line, whose first byte is how often its key is repeated, so that some are too long. All keys
    // together fill a few messages; more of them would be slower and find nothing else.
    let mut room = 40_000;
    let changes: Vec<Change> = bytes
        .split(|byte| *byte == b'\n')
        .zip(1..)
        .map(|(line, seq)| {
            let (&first, rest) = line.split_first().unwrap_or((&0, &[]));
            let times = usize::from(first).min(room / rest.len().max(1)).max(1);
            room = usize::saturating_sub(room, times * rest.len());
            let key = text(rest).repeat(times);
            let at = i64::from_le_bytes(std::array::from_fn(|n| *rest.get(n).unwrap_or(&first)));
            Change {
                seq,
                user_id: presence_id_text(&key),
                user_key: (first > 0).then_some(key),
                status: Status::of(u32::from(first & 1), u32::from(first >> 1 & 1)),
                at,
                last_seen: (first & 2 == 2).then_some(at),
                details: first & 4 == 4,
            }
        })
        .collect();
    let (mut prev, mut last) = (0, 0);
    for payload in pack("epoch", 0, &changes, alphabet) {
        assert!(payload.len() < 8000);
        assert!(alphabet == Alphabet::Unicode || payload.is_ascii());
        let message: serde_json::Value = serde_json::from_str(&payload).expect("JSON");
        assert_eq!(message["prev"], prev);
        prev = message["seq"].as_i64().expect("a number");
        for change in message["changes"].as_array().into_iter().flatten() {
            let seq = change["seq"].as_u64().expect("a number") as usize;
            assert!(seq > last);
            last = seq;
            let given = &changes[seq - 1];
            assert_eq!(change["key"].as_str(), given.user_key.as_deref());
            assert_eq!(change["details"].as_bool().unwrap_or(false), given.details);
        }
    }
    assert_eq!(prev, changes.len() as i64);
});
