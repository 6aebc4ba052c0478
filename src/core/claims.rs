//! One claim out of the claims of a JWT, as a gateway leaves them in `request.jwt.claims`.
//!
//! This runs on every call of a client, so it reads the JSON once, keeps nothing of the other claims, and borrows the
//! value unless it has escapes.

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use uuid::Uuid;

/// The value of a claim that can name somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
}

/// Reads a top-level claim.
///
/// The last of several of the same name counts, as in jsonb. There is none if the JSON is malformed or no object, if
/// the claim is missing, neither a string nor an integer of 64 bits, or has a NUL, which no text of PostgreSQL can hold.
pub fn read<'a>(json: &'a [u8], name: &str) -> Option<Claim<'a>> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let found = json.deserialize_map(Claims { name }).ok()?;
    json.end().ok()?;
    found.filter(|claim| !matches!(claim, Claim::Text(text) if text.contains('\0')))
}

/// Reads a top-level claim that is a string, as [`read`] does.
pub fn claim<'a>(json: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    match read(json, name)? {
        Claim::Text(text) => Some(text),
        Claim::Integer(_) => None,
    }
}

/// Reads a top-level claim that is a string or an integer, the latter as it is printed, as [`read`] does.
pub fn claim_text<'a>(json: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    match read(json, name)? {
        Claim::Text(text) => Some(text),
        Claim::Integer(integer) => Some(Cow::Owned(integer.to_string())),
    }
}

/// Reads a uuid in the usual forms, in either case: 32 hex digits, with or without the four hyphens, with or without
/// braces around the hyphens' form. PostgreSQL reads each of them too.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    match text.len() {
        32 | 36 | 38 => Uuid::try_parse(text).ok(),
        _ => None,
    }
}

/// The top-level object.
struct Claims<'n> {
    name: &'n str,
}

impl<'de> Visitor<'de> for Claims<'_> {
    type Value = Option<Claim<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(wanted) = map.next_key_seed(Name(self.name))? {
            if wanted {
                found = map.next_value_seed(Value)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A claim's name: whether it is the one we look for.
struct Name<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// The value of the claim we look for.
struct Value;

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Option<Claim<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Option<Claim<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Claim::Text(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Claim::Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<Self::Value, E> {
        Ok(Some(Claim::Integer(integer)))
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(integer).ok().map(Claim::Integer))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}
