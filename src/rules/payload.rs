//! The messages of the channel: what a listener reads.

use std::fmt::Write;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{
    status::Status,
    time::{Micros, rfc3339},
};

/// What PostgreSQL allows a payload, in bytes.
const LIMIT: usize = 7_999;

/// One visible change of a user's status.
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
}

/// The characters of a message. Whatever is beyond them is escaped as JSON has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    Unicode,
    /// Where the database has another encoding: the message is the same in each, and as long as it was made.
    Ascii,
}

/// The messages that tell these changes, in order, each under 8,000 bytes and as full as it goes.
///
/// `prev` is the sequence of the message before. The `prev` of each message is the `seq` of the one before it, the `seq`
/// that of its last change. A change too long to be told by itself is told by a message without changes.
pub fn pack(epoch: &str, prev: i64, changes: &[Change], alphabet: Alphabet) -> Vec<String> {
    let mut packer = Packer::new(epoch, prev, alphabet);
    for change in changes {
        packer.push(change);
    }
    packer.finish()
}

/// A message without changes: whoever is behind `seq` reads the changes from the database.
pub fn wakeup(epoch: &str, prev: i64, seq: i64) -> String {
    head(&head_start(epoch), prev, seq) + "}"
}

/// Packs changes into messages, each written once.
struct Packer {
    alphabet: Alphabet,
    head_start: String,
    messages: Vec<String>,
    /// The sequence of the message before the open one.
    prev: i64,
    /// The sequence of the last change seen.
    seq: i64,
    /// The changes of the open message, or none if there is none.
    body: String,
    /// Whether the open message stands for changes that cannot be told.
    unsendable: bool,
}

impl Packer {
    fn new(epoch: &str, prev: i64, alphabet: Alphabet) -> Packer {
        Packer {
            alphabet,
            head_start: head_start(epoch),
            messages: Vec::new(),
            prev,
            seq: prev,
            body: String::with_capacity(LIMIT),
            unsendable: false,
        }
    }

    fn push(&mut self, change: &Change) {
        let text = match self.alphabet {
            Alphabet::Unicode => json(change),
            Alphabet::Ascii => ascii(json(change)),
        };
        if self.unsendable || !self.fits(self.prev, change.seq, self.body.len() + 1 + text.len()) {
            let fits_alone = self.fits(self.seq, change.seq, text.len());
            if fits_alone || !self.unsendable {
                self.close();
            }
            self.unsendable = !fits_alone;
        }
        if !self.unsendable {
            if !self.body.is_empty() {
                self.body.push(',');
            }
            self.body.push_str(&text);
        }
        self.seq = change.seq;
    }

    fn fits(&self, prev: i64, seq: i64, body: usize) -> bool {
        head_len(&self.head_start, prev, seq) + OPEN.len() + body + CLOSE.len() <= LIMIT
    }

    /// Writes the open message, if there is one.
    fn close(&mut self) {
        let mut message = head(&self.head_start, self.prev, self.seq);
        if self.unsendable {
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
        self.unsendable = false;
        self.prev = self.seq;
    }

    fn finish(mut self) -> Vec<String> {
        self.close();
        self.messages
    }
}

const OPEN: &str = ",\"changes\":[";
const CLOSE: &str = "]}";

fn head_start(epoch: &str) -> String {
    format!("{{\"v\":1,\"epoch\":{},\"prev\":", ascii(json(epoch)))
}

fn head(start: &str, prev: i64, seq: i64) -> String {
    let mut head = start.to_owned();
    let _ = write!(head, "{prev},\"seq\":{seq}");
    head
}

fn head_len(start: &str, prev: i64, seq: i64) -> usize {
    start.len() + digits(prev) + ",\"seq\":".len() + digits(seq)
}

/// How long a number is when printed.
fn digits(number: i64) -> usize {
    let sign = usize::from(number < 0);
    sign + number.unsigned_abs().checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Cannot fail: neither our types nor a string refuse to be written, and there is no map with odd keys.
fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// JSON with every character beyond ASCII escaped; it has them in strings only.
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
        }
    }

    #[test]
    fn a_message_is_exactly_as_promised() {
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
    fn what_is_not_known_is_left_out() {
        let mut unseen = change(1, None);
        unseen.last_seen = None;
        let message: Value = serde_json::from_str(&pack("e", 0, &[unseen], Unicode)[0]).unwrap();
        let told: Vec<_> = message["changes"][0].as_object().unwrap().keys().cloned().collect();
        assert_eq!(told, ["at", "seq", "status", "user_id"]);
    }

    #[test]
    fn what_is_not_ascii_can_be_escaped() {
        let message = &pack("e", 0, &[change(1, Some("müller 🟢"))], Ascii)[0];
        assert!(message.contains(r#""key":"m\u00fcller \ud83d\udfe2""#));
        let message: Value = serde_json::from_str(message).unwrap();
        assert_eq!(message["changes"][0]["key"], "müller 🟢");
    }

    #[test]
    fn no_change_is_no_message() {
        assert!(pack(EPOCH, 5, &[], Unicode).is_empty());
    }

    #[test]
    fn messages_are_as_full_as_they_go() {
        let changes: Vec<_> = (1..=1000).map(|seq| change(seq, None)).collect();
        let messages = pack(EPOCH, 0, &changes, Unicode);
        let one = json(&changes[998]).len() + 1;
        for (index, message) in messages.iter().enumerate() {
            assert!(message.len() <= LIMIT);
            assert!(index + 1 == messages.len() || message.len() + one > LIMIT);
        }
    }

    /// A key that makes the only change of a message exactly `length` bytes long.
    fn key_filling(length: usize) -> String {
        let empty = pack(EPOCH, 0, &[change(1, Some(""))], Unicode)[0].len();
        "k".repeat(length - empty)
    }

    #[test]
    fn a_message_may_be_7999_bytes_and_no_more() {
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
    fn a_change_too_long_to_tell_wakes_listeners_instead() {
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
        fn messages_chain_and_tell_every_change_once(
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
            let mut told = changes.iter();
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
                        prop_assert!(ascii(json(told.next().unwrap())).len() > longest);
                    },
                    Some(changes) => {
                        let changes = changes.as_array().unwrap();
                        prop_assert_eq!(changes.len() as i64, seq - last);
                        for change in changes {
                            let expected: Value = serde_json::from_str(&json(told.next().unwrap())).unwrap();
                            prop_assert_eq!(change, &expected);
                        }
                    }
                }
                last = seq;
            }
            prop_assert!(told.next().is_none());
        }

        #[test]
        fn a_number_is_as_long_as_it_prints(number in any::<i64>()) {
            for number in [number, 0, i64::MIN, i64::MAX, 9, 10, -1] {
                prop_assert_eq!(digits(number), number.to_string().len());
            }
        }
    }
}
