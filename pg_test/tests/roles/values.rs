//! Random values of a type, as SQL: the usual, the ends, and what nobody should send.

use pg_presence_test::{Dice, Session};
use uuid::Uuid;

/// What a call could be about that exists.
pub struct Known {
    pub own: Session,
    pub foreign: Session,
    pub users: [Uuid; 2],
}

#[rustfmt::skip]
const TEXTS: &[&str] = &[
    "''", "' '", "'x'", "'42'", "'-0'", "'9223372036854775808'", "'auth0|abc'", "'%s%n%1$s'", "'''; DROP TABLE users; --'",
    "'\"presence\".x'", "E'\\x01\\x7f\\n\\t'", "U&'\\00e9\\+01F7E2\\FFFF\\200F'", "repeat('é', 256)", "repeat('x', 21)",
    "repeat('x', 22)", "repeat('x', 512)", "repeat('x', 513)", "repeat('🟢', 100000)", "'{\"a\":1}'", "'NaN'", "'NULL'",
    "'sha256:' || repeat('0', 64)", "presence.token_digest('x')", "gen_random_uuid()::text", "current_setting('presence.channel')",
    "repeat(chr(55295), 170)", "'a token that is always the same one'",
];

#[rustfmt::skip]
const INTERVALS: &[&str] = &[
    "'0'", "'1 microsecond'", "'-1 microsecond'", "'1 s'", "'1 h'", "'1 day'", "'24:00:00.000001'", "'1 month -30 days'",
    "'1 day -24 hours'", "'10 years'", "'10 years 1 day'", "'178000000 years'", "'-178000000 years'",
    "'2147483647 months 2147483647 days'", "'-2147483648 months -2147483648 days'", "'2562047788:00:54.775807'",
];

#[rustfmt::skip]
const JSONS: &[&str] = &[
    "'{}'", "'[]'", "'null'", "'1'", "'\"a\"'", "'{\"a\": {\"b\": [1, 2, null]}}'", "'{\"\": \"\\u0001\"}'", "'[{}]'",
    "jsonb_build_object('a', repeat('x', 8100))", "jsonb_build_object('a', repeat('x', 9000))",
    "jsonb_build_object('a', repeat('x', 1000000))", "('{\"a\":' || repeat('[', 5000) || repeat(']', 5000) || '}')::jsonb",
    "'{\"a\": 1e131071}'", "to_jsonb(ARRAY[1, 2])", "(SELECT jsonb_object_agg(n, n) FROM generate_series(1, 300) n)",
];

#[rustfmt::skip]
const TIMES: &[&str] = &[
    "'infinity'", "'-infinity'", "'4714-11-24 00:00:00+00 BC'", "'294276-12-31 23:59:59+00'", "now()", "clock_timestamp()",
    "now() - interval '1 hour'", "now() + interval '1 day'", "now() + interval '1 s'", "'epoch'",
];

const INTEGERS: &[&str] = &["0", "1", "-1", "2", "1000", "2147483647", "(-2147483648)"];
const LONGS: &[&str] = &[
    "0",
    "1",
    "-1",
    "7",
    "4611686018427387904",
    "9223372036854775807",
    "(-9223372036854775808)",
];
const ROLES: &[&str] = &[
    "current_user::regrole",
    "'postgres'",
    "'0'",
    "'4294967295'",
    "'pg_monitor'",
    "'-'",
];

/// A value of this type.
pub fn value(dice: &mut Dice, kind: &str, known: &Known) -> String {
    if dice.roll(12) == 0 {
        return format!("NULL::{kind}");
    }
    let random = match kind {
        "text" if dice.roll(3) == 0 => {
            format!("'{}'", dice.pick(&[&known.own, &known.foreign]).token)
        }
        "text" => (*dice.pick(TEXTS)).to_owned(),
        "uuid" => uuid(dice, known),
        "uuid[]" => uuids(dice, known),
        "interval" => (*dice.pick(INTERVALS)).to_owned(),
        "jsonb" => (*dice.pick(JSONS)).to_owned(),
        "timestamp with time zone" => (*dice.pick(TIMES)).to_owned(),
        "integer" => (*dice.pick(INTEGERS)).to_owned(),
        "bigint" if dice.roll(2) == 0 => format!("({})", dice.number() as i64),
        "bigint" => (*dice.pick(LONGS)).to_owned(),
        "boolean" => (*dice.pick(&["true", "false"])).to_owned(),
        "regrole" => (*dice.pick(ROLES)).to_owned(),
        _ => panic!("no values of type {kind}"),
    };
    format!("({random})::{kind}")
}

fn uuid(dice: &mut Dice, known: &Known) -> String {
    match dice.roll(9) {
        0 => "'00000000-0000-0000-0000-000000000000'".to_owned(),
        1 => "'ffffffff-ffff-ffff-ffff-ffffffffffff'".to_owned(),
        2 => "presence.presence_id(42)".to_owned(),
        3 => "gen_random_uuid()".to_owned(),
        4 => format!("'{}'", known.foreign.id),
        5 => format!("'{}'", known.users[1]),
        6 => format!("'{}'", known.users[0]),
        _ => format!("'{}'", known.own.id),
    }
}

fn uuids(dice: &mut Dice, known: &Known) -> String {
    let (a, b) = (uuid(dice, known), uuid(dice, known));
    match dice.roll(9) {
        0 => "'{}'".to_owned(),
        1 => "'{NULL,NULL}'".to_owned(),
        2 => format!("ARRAY[ARRAY[{a}, {b}], ARRAY[{b}, NULL]]::uuid[]"),
        3 => format!("('[5:6]={{NULL,' || ({a})::uuid || '}}')"),
        4 => format!("(ARRAY[{a}, {b}, {a}]::uuid[])[2:]"),
        5 => format!("array_fill(({a})::uuid, ARRAY[2, 2, 2, 2, 2, 2])"),
        6 if dice.roll(50) == 0 => {
            "(SELECT array_agg(gen_random_uuid()) FROM generate_series(1, 5000))".to_owned()
        }
        _ => format!("ARRAY[{a}, {b}]::uuid[]"),
    }
}
