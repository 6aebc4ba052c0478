//! The format of the results file: JSON with one figure per line and six significant digits.

use std::io;

use serde::{Serialize, Serializer, ser::Error};
use serde_json::{ser::Formatter, value::RawValue};

/// Serializes a list with each item on a line of its own, within pretty-printed JSON.
pub fn one_per_line<T: Serialize, S: Serializer>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    let lines: Result<Vec<_>, _> = items.iter().map(line).collect();
    serializer.collect_seq(lines.map_err(S::Error::custom)?)
}

fn line<T: Serialize>(item: &T) -> serde_json::Result<Box<RawValue>> {
    let mut out = Vec::new();
    item.serialize(&mut serde_json::Serializer::with_formatter(&mut out, OneLine))?;
    RawValue::from_string(String::from_utf8(out).map_err(serde_json::Error::custom)?)
}

/// One line, with a space after each comma and colon, and rounded numbers.
struct OneLine;

impl Formatter for OneLine {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write!(writer, "{}", rounded(value))
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Rounds to six significant digits, but not coarser than to an integer.
fn rounded(value: f64) -> f64 {
    if value.abs() >= 1e5 {
        value.round()
    } else {
        format!("{value:.5e}").parse().unwrap_or(value)
    }
}
