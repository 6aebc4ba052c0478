//! A fast parser for the JSON that claims nearly always are: no escapes, no numbers but integers, little nesting.
//!
//! It runs on every call of a client, with cold processor caches, so it is small and reads each byte once. It accepts
//! a subset of JSON and leaves everything else, valid or not, to the full parser.

/// The JSON is not in the subset, or invalid: only the full parser can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedsFullParser;

/// A JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Text(&'a [u8]),
    Integer(i64),
    /// A value of any other type.
    Other,
}

/// The maximum depth of nested objects and arrays.
const MAX_DEPTH: u32 = 32;
/// The maximum number of digits of an integer; these always fit into 64 bits.
const MAX_DIGITS: usize = 18;

/// Returns the value of a member of the top-level object; the last one if there are several of the name.
pub fn member<'a>(json: &'a [u8], name: &str) -> Result<Option<Value<'a>>, NeedsFullParser> {
    let mut scan = Scan { json, at: 0 };
    scan.expect(b'{')?;
    let found = scan.members(Some(name.as_bytes()), MAX_DEPTH)?;
    match json[scan.at..].iter().all(is_space) {
        true => Ok(found),
        false => Err(NeedsFullParser),
    }
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// A position in the JSON.
struct Scan<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// Returns the next byte that is not white space.
    #[inline]
    fn next(&mut self) -> Result<u8, NeedsFullParser> {
        loop {
            let byte = *self.json.get(self.at).ok_or(NeedsFullParser)?;
            self.at += 1;
            if !is_space(&byte) {
                return Ok(byte);
            }
        }
    }

    /// Consumes the next byte that is not white space, which must be this one.
    fn expect(&mut self, wanted: u8) -> Result<(), NeedsFullParser> {
        match self.next()? {
            byte if byte == wanted => Ok(()),
            _ => Err(NeedsFullParser),
        }
    }

    /// Parses an object after its `{`. Returns the last member that is called `name`, if a name is given.
    fn members(&mut self, name: Option<&[u8]>, depth: u32) -> Result<Option<Value<'a>>, NeedsFullParser> {
        let mut found = None;
        let mut next = self.next()?;
        if next == b'}' {
            return Ok(found);
        }
        loop {
            if next != b'"' {
                return Err(NeedsFullParser);
            }
            let key = self.string()?;
            // Names at the top level must be valid UTF-8, which only the full parser checks.
            if name.is_some() && !key.is_ascii() {
                return Err(NeedsFullParser);
            }
            self.expect(b':')?;
            let first = self.next()?;
            let value = self.value(first, depth)?;
            if name == Some(key) {
                found = Some(value);
            }
            match self.next()? {
                b',' => next = self.next()?,
                b'}' => return Ok(found),
                _ => return Err(NeedsFullParser),
            }
        }
    }

    /// Parses an array after its `[`.
    fn elements(&mut self, depth: u32) -> Result<(), NeedsFullParser> {
        let mut next = self.next()?;
        if next == b']' {
            return Ok(());
        }
        loop {
            self.value(next, depth)?;
            match self.next()? {
                b',' => next = self.next()?,
                b']' => return Ok(()),
                _ => return Err(NeedsFullParser),
            }
        }
    }

    /// Parses the value that begins with this byte.
    fn value(&mut self, first: u8, depth: u32) -> Result<Value<'a>, NeedsFullParser> {
        match first {
            b'"' => self.string().map(Value::Text),
            b'-' | b'0'..=b'9' => self.integer().map(Value::Integer),
            b't' => self.literal(b"rue"),
            b'f' => self.literal(b"alse"),
            b'n' => self.literal(b"ull"),
            b'{' | b'[' => {
                let depth = depth.checked_sub(1).ok_or(NeedsFullParser)?;
                match first {
                    b'{' => self.members(None, depth).map(drop)?,
                    _ => self.elements(depth)?,
                }
                Ok(Value::Other)
            }
            _ => Err(NeedsFullParser),
        }
    }

    /// Parses a string after its opening quote.
    fn string(&mut self) -> Result<&'a [u8], NeedsFullParser> {
        let rest = &self.json[self.at..];
        let end = rest
            .iter()
            .position(|&byte| byte == b'"' || byte == b'\\' || byte < b' ')
            .ok_or(NeedsFullParser)?;
        self.at += end + 1;
        match rest[end] {
            b'"' => Ok(&rest[..end]),
            _ => Err(NeedsFullParser),
        }
    }

    /// Parses the integer whose first byte has been read.
    fn integer(&mut self) -> Result<i64, NeedsFullParser> {
        let rest = &self.json[self.at - 1..];
        let (sign, rest) = match rest {
            [b'-', rest @ ..] => (-1, rest),
            rest => (1, rest),
        };
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = rest.split_at(length);
        let is_plain = match digits {
            // JSON parsers read -0 as a floating-point number.
            [b'0'] => sign == 1,
            [b'0', ..] | [] => false,
            _ => length <= MAX_DIGITS,
        };
        if !is_plain || matches!(rest, [b'.' | b'e' | b'E', ..]) {
            return Err(NeedsFullParser);
        }
        self.at = self.json.len() - rest.len();
        let value = digits
            .iter()
            .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        Ok(sign * value)
    }

    /// Parses the rest of `true`, `false` or `null`.
    fn literal(&mut self, rest: &[u8]) -> Result<Value<'a>, NeedsFullParser> {
        if !self.json[self.at..].starts_with(rest) {
            return Err(NeedsFullParser);
        }
        self.at += rest.len();
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typical_claims_are_parsed() {
        let json = br#" { "aud" : "authenticated", "exp":1795450000, "sub": "a\u00e9", "n": -7,
            "app": {"providers":["email", {}, []], "sub": "not this"}, "ok": true, "no": null, "sub":"b" } "#;
        let json = &String::from_utf8_lossy(json).replace("\\u00e9", "é");
        let member = |name| member(json.as_bytes(), name).expect("JSON in the subset");
        assert_eq!(member("sub"), Some(Value::Text(b"b")));
        assert_eq!(member("exp"), Some(Value::Integer(1_795_450_000)));
        assert_eq!(member("n"), Some(Value::Integer(-7)));
        assert_eq!(member("app"), Some(Value::Other));
        assert_eq!(member("no"), Some(Value::Other));
        assert_eq!(member("providers"), None);
    }

    #[test]
    fn anything_else_is_left_to_the_full_parser() {
        for json in [
            "",
            "[]",
            "{",
            "{}}",
            "{} x",
            r#"{"a":"\n"}"#,
            "{\"a\":\"\n\"}",
            r#"{"é":1}"#,
            r#"{"a":1.5}"#,
            r#"{"a":-0}"#,
            r#"{"a":01}"#,
            r#"{"a":1e2}"#,
            r#"{"a":9223372036854775807}"#,
            r#"{"a":-}"#,
            r#"{"a":tru}"#,
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{"a":[1 2]}"#,
        ] {
            assert_eq!(member(json.as_bytes(), "a"), Err(NeedsFullParser), "{json}");
        }
        let deep = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(member(deep(32).as_bytes(), "a"), Ok(Some(Value::Other)));
        assert_eq!(member(deep(33).as_bytes(), "a"), Err(NeedsFullParser));
    }
}
