//! The payloads of notifications: messages in JSON.

use std::fmt::Write;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{
    status::Status,
    time::{Micros, rfc3339},
};

/// The maximum length of a payload in PostgreSQL, in bytes.
const MAX_LENGTH: usize = 7_999;

/// A change of a user's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub seq: i64,
    #[serde(serialize_with = "as_text")]
    pub user_id: Uuid,
    #[serde(rename = "key", skip_serializing_if = "Option::is_none")]
    pub user_key: Option<String>,
    #[serde(serialize_with = "as_label")]
    pub status: Status,
    #[serde(serialize_with = "as_time")]
    pub at: Micros,
    #[serde(serialize_with = "as_optional_time", skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Micros>,
    /// Whether the user has a text or emoji to read, which no message contains.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub details: bool,
}

/// The characters that a message may contain. Others are escaped as in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    Unicode,
    /// For a database that is not UTF-8: ASCII is the same, and as long, in every encoding.
    Ascii,
}

/// Packs changes, in order, into as few messages as possible, each shorter than 8,000 bytes.
///
/// `prev` is the `seq` of the previous message. The `prev` of each message is the `seq` of the one before it; its `seq`
/// is that of its last change. Changes that are too long for a message are replaced by a wakeup.
pub fn pack(epoch: &str, prev: i64, changes: &[Change], alphabet: Alphabet) -> Vec<String> {
    let mut packer = Packer::new(epoch, prev, alphabet);
    for change in changes {
        packer.push(change);
    }
    packer.finish()
}

/// Returns a message without changes, upon which listeners read the changes up to `seq` from the database.
pub fn wakeup(epoch: &str, prev: i64, seq: i64) -> String {
    head(&head_start(epoch), prev, seq) + "}"
}

/// Packs changes into messages, in a single pass.
struct Packer {
    alphabet: Alphabet,
    head_start: String,
    messages: Vec<String>,
    /// The `seq` of the message before the open one.
    prev: i64,
    /// The `seq` of the last change.
    seq: i64,
    /// The changes of the open message, or empty if there is none.
    body: String,
    /// Whether the open message is a wakeup, in place of changes that are too long.
    is_wakeup: bool,
}

impl Packer {
    fn new(epoch: &str, prev: i64, alphabet: Alphabet) -> Packer {
        Packer {
            alphabet,
            head_start: head_start(epoch),
            messages: Vec::new(),
            prev,
            seq: prev,
            body: String::with_capacity(MAX_LENGTH),
            is_wakeup: false,
        }
    }

    fn push(&mut self, change: &Change) {
        let text = match self.alphabet {
            Alphabet::Unicode => json(change),
            Alphabet::Ascii => ascii(json(change)),
        };
        if self.is_wakeup || !self.fits(self.prev, change.seq, self.body.len() + 1 + text.len()) {
            let fits_alone = self.fits(self.seq, change.seq, text.len());
            if fits_alone || !self.is_wakeup {
                self.close();
            }
            self.is_wakeup = !fits_alone;
        }
        if !self.is_wakeup {
            if !self.body.is_empty() {
                self.body.push(',');
            }
            self.body.push_str(&text);
        }
        self.seq = change.seq;
    }

    /// Returns whether a message with a body of this length is short enough.
    fn fits(&self, prev: i64, seq: i64, body: usize) -> bool {
        head_len(&self.head_start, prev, seq) + OPEN.len() + body + CLOSE.len() <= MAX_LENGTH
    }

    /// Ends the open message, if there is one.
    fn close(&mut self) {
        let mut message = head(&self.head_start, self.prev, self.seq);
        if self.is_wakeup {
            message.push('}');
        } else if self.body.is_empty() {
            return;
        } else {
            message.reserve(OPEN.len() + self.body.len() + CLOSE.len());
            message.push_str(OPEN);
            message.push_str(&self.body);
            message.push_str(CLOSE);
        }
        self.messages.push(message);
        self.body.clear();
        self.is_wakeup = false;
        self.prev = self.seq;
    }

    fn finish(mut self) -> Vec<String> {
        self.close();
        self.messages
    }
}

/// What encloses the changes of a message.
const OPEN: &str = ",\"changes\":[";
const CLOSE: &str = "]}";

/// Returns the beginning of every message of an epoch.
fn head_start(epoch: &str) -> String {
    format!("{{\"v\":1,\"epoch\":{},\"prev\":", ascii(json(epoch)))
}

/// Returns a message up to its changes, unclosed.
fn head(start: &str, prev: i64, seq: i64) -> String {
    let mut head = start.to_owned();
    let _ = write!(head, "{prev},\"seq\":{seq}");
    head
}

/// Returns the length of [`head`].
fn head_len(start: &str, prev: i64, seq: i64) -> usize {
    start.len() + digits(prev) + ",\"seq\":".len() + digits(seq)
}

/// Returns the length of a number in decimal notation.
fn digits(number: i64) -> usize {
    let sign = usize::from(number < 0);
    sign + number.unsigned_abs().checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Serializes to JSON. Cannot fail: strings and the types above always serialize, and there is no map with other keys.
fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Escapes every character of a JSON text that is not ASCII; only strings contain such characters.
fn ascii(json: String) -> String {
    if json.is_ascii() {
        return json;
    }
    let mut escaped = String::with_capacity(2 * json.len());
    for character in json.chars() {
        if character.is_ascii() {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

fn as_text<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
}

fn as_label<S: Serializer>(status: &Status, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(status.as_str())
}

fn as_time<S: Serializer>(at: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

fn as_optional_time<S: Serializer>(at: &Option<Micros>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => as_time(at, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::Alphabet::{Ascii, Unicode};
    use super::*;
    use crate::rules::presence_id::presence_id_text;
    use proptest::prelude::*;
    use serde_json::Value;

    const EPOCH: &str = "0192f0c1-5f3e-7c1d-9b1e-0a1b2c3d4e5f";

    fn change(seq: i64, key: Option<&str>) -> Change {
        Change {
            seq,
            user_id: presence_id_text(key.unwrap_or("nobody")),
            user_key: key.map(str::to_owned),
            status: Status::Active,
            at: 848_761_200_123_456,
            last_seen: Some(848_761_200_000_000),
            details: false,
        }
    }

    #[test]
    fn a_message_is_exactly_as_documented() {
        let mut second = change(43, None);
        second.status = Status::Inactive;
        let messages = pack("e", 41, &[change(42, Some("42")), second], Unicode);
        assert_eq!(
            messages,
            [concat!(
                r#"{"v":1,"epoch":"e","prev":41,"seq":43,"changes":["#,
                r#"{"seq":42,"user_id":"70726573-656e-8ce0-8000-00000000002a","key":"42","status":"active","#,
                r#""at":"2026-11-23T15:00:00.123456Z","last_seen":"2026-11-23T15:00:00.000000Z"},"#,
                r#"{"seq":43,"user_id":"bd0a2ef9-0000-5000-8000-000000000000","status":"inactive","#,
                r#""at":"2026-11-23T15:00:00.123456Z","last_seen":"2026-11-23T15:00:00.000000Z"}]}"#,
            )
            .replace(
                "bd0a2ef9-0000-5000-8000-000000000000",
                &presence_id_text("nobody").to_string()
            )]
        );
        assert_eq!(wakeup("e", 43, 9043), r#"{"v":1,"epoch":"e","prev":43,"seq":9043}"#);
    }

    #[test]
    fn unknown_values_are_omitted() {
        let mut unseen = change(1, None);
        unseen.last_seen = None;
        let message: Value = serde_json::from_str(&pack("e", 0, &[unseen], Unicode)[0]).unwrap();
        let fields: Vec<_> = message["changes"][0].as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields, ["at", "seq", "status", "user_id"]);
    }

    #[test]
    fn a_text_or_emoji_is_announced_and_never_sent() {
        let mut with_details = change(1, None);
        with_details.details = true;
        let message = &pack("e", 0, &[with_details], Unicode)[0];
        assert!(message.ends_with(r#""last_seen":"2026-11-23T15:00:00.000000Z","details":true}]}"#));
    }

    #[test]
    fn characters_beyond_ascii_can_be_escaped() {
        let message = &pack("e", 0, &[change(1, Some("müller 🟢"))], Ascii)[0];
        assert!(message.contains(r#""key":"m\u00fcller \ud83d\udfe2""#));
        let message: Value = serde_json::from_str(message).unwrap();
        assert_eq!(message["changes"][0]["key"], "müller 🟢");
    }

    #[test]
    fn no_change_makes_no_message() {
        assert!(pack(EPOCH, 5, &[], Unicode).is_empty());
    }

    #[test]
    fn messages_are_as_full_as_possible() {
        let changes: Vec<_> = (1..=1000).map(|seq| change(seq, None)).collect();
        let messages = pack(EPOCH, 0, &changes, Unicode);
        let one = json(&changes[998]).len() + 1;
        for (index, message) in messages.iter().enumerate() {
            assert!(message.len() <= MAX_LENGTH);
            assert!(index + 1 == messages.len() || message.len() + one > MAX_LENGTH);
        }
    }

    /// Returns a key with which a message of one change is exactly `length` bytes long.
    fn key_filling(length: usize) -> String {
        let empty = pack(EPOCH, 0, &[change(1, Some(""))], Unicode)[0].len();
        "k".repeat(length - empty)
    }

    #[test]
    fn a_message_has_at_most_7999_bytes() {
        let fits = pack(EPOCH, 0, &[change(1, Some(&key_filling(7_999)))], Unicode);
        assert_eq!(fits.len(), 1);
        assert_eq!(fits[0].len(), 7_999);
        assert!(fits[0].contains("changes"));
        assert_eq!(
            pack(EPOCH, 0, &[change(1, Some(&key_filling(8_000)))], Unicode),
            [wakeup(EPOCH, 0, 1)]
        );
    }

    #[test]
    fn changes_too_long_for_a_message_are_replaced_by_a_wakeup() {
        let long = "k".repeat(1 << 20);
        let messages = pack(
            EPOCH,
            0,
            &[
                change(1, None),
                change(2, Some(&long)),
                change(3, Some(&long)),
                change(4, None),
                change(5, Some(&long)),
            ],
            Unicode,
        );
        assert_eq!(messages.len(), 4);
        assert_eq!(messages[1], wakeup(EPOCH, 1, 3));
        assert_eq!(messages[3], wakeup(EPOCH, 4, 5));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn messages_are_chained_and_contain_every_change_once(
            prev in 0..i64::MAX / 2,
            epoch in ".{0,40}",
            alphabet in prop_oneof![Just(Unicode), Just(Ascii)],
            keys in prop::collection::vec(prop::option::of(prop_oneof![
                20 => "\\PC{0,40}", 2 => any::<String>(), 1 => "(é|\u{1}|\"){2000,5000}", 1 => "[a-z]{7600,8100}",
            ]), 0..150),
        ) {
            let changes: Vec<_> =
                keys.iter().zip(prev + 1..).map(|(key, seq)| change(seq, key.as_deref())).collect();
            let longest = 7_890 - ascii(json(&epoch)).len();
            let mut last = prev;
            let mut expected_changes = changes.iter();
            for message in pack(&epoch, prev, &changes, alphabet) {
                prop_assert!(message.len() < 8_000);
                prop_assert!(alphabet == Unicode || message.is_ascii());
                let message: Value = serde_json::from_str(&message).unwrap();
                prop_assert_eq!(message["v"].as_i64(), Some(1));
                prop_assert_eq!(message["epoch"].as_str(), Some(epoch.as_str()));
                prop_assert_eq!(message["prev"].as_i64(), Some(last));
                let seq = message["seq"].as_i64().unwrap();
                prop_assert!(seq > last);
                match message.get("changes") {
                    None => for _ in last..seq {
                        prop_assert!(ascii(json(expected_changes.next().unwrap())).len() > longest);
                    },
                    Some(changes) => {
                        let changes = changes.as_array().unwrap();
                        prop_assert_eq!(changes.len() as i64, seq - last);
                        for change in changes {
                            let expected: Value = serde_json::from_str(&json(expected_changes.next().unwrap())).unwrap();
                            prop_assert_eq!(change, &expected);
                        }
                    }
                }
                last = seq;
            }
            prop_assert!(expected_changes.next().is_none());
        }

        #[test]
        fn digits_is_the_length_of_the_number(number in any::<i64>()) {
            for number in [number, 0, i64::MIN, i64::MAX, 9, 10, -1] {
                prop_assert_eq!(digits(number), number.to_string().len());
            }
        }
    }
}
