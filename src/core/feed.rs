//! The messages of the channel: what a listener reads.

use super::status::Status;
use super::time::{Micros, rfc3339};
use serde::{Serialize, Serializer};
use std::fmt::Write;
use uuid::Uuid;

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
    #[serde(
        serialize_with = "as_optional_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub last_seen: Option<Micros>,
}

/// The messages that tell these changes, in order, each under 8,000 bytes and as full as it goes.
///
/// `prev` is the sequence of the message before. The `prev` of each message is the `seq` of the one before it, the `seq`
/// that of its last change. A change too long to be told by itself is told by a message without changes.
pub fn payloads(epoch: &str, prev: i64, changes: &[Change]) -> Vec<String> {
    let mut packer = Packer::new(epoch, prev);
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
    head_start: String,
    messages: Vec<String>,
    /// The sequence of the message before the open one.
    prev: i64,
    /// The sequence of the last change seen.
    seq: i64,
    /// The changes of the open message, or none if there is none.
    body: String,
    /// Whether the open message stands for changes that cannot be told.
    untold: bool,
}

impl Packer {
    fn new(epoch: &str, prev: i64) -> Packer {
        Packer {
            head_start: head_start(epoch),
            messages: Vec::new(),
            prev,
            seq: prev,
            body: String::with_capacity(LIMIT),
            untold: false,
        }
    }

    fn push(&mut self, change: &Change) {
        let text = json(change);
        if self.untold || !self.fits(self.prev, change.seq, self.body.len() + 1 + text.len()) {
            let fits_alone = self.fits(self.seq, change.seq, text.len());
            if fits_alone || !self.untold {
                self.close();
            }
            self.untold = !fits_alone;
        }
        if !self.untold {
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
        if self.untold {
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
        self.untold = false;
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
    format!("{{\"v\":1,\"epoch\":{},\"prev\":", json(epoch))
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
    sign + number
        .unsigned_abs()
        .checked_ilog10()
        .map_or(1, |log| log as usize + 1)
}

/// Cannot fail: neither our types nor a string refuse to be written, and there is no map with odd keys.
fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
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
