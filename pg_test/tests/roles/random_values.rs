//! Random values of a type, as SQL: usual ones, boundaries, and invalid ones.

use pg_presence_test::{Rng, Session};
use uuid::Uuid;

/// The sessions and users that exist.
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

const OIDS: &[&str] = &["0", "1259", "'pg_class'::regclass", "16384", "4294967295"];

/// Returns a random value of a type.
pub fn value(rng: &mut Rng, kind: &str, known: &Known) -> String {
    if rng.below(12) == 0 {
        return format!("NULL::{kind}");
    }
    let random = match kind {
        "text" if rng.below(3) == 0 => {
            format!("'{}'", rng.pick(&[&known.own, &known.foreign]).token)
        }
        "text" => (*rng.pick(TEXTS)).to_owned(),
        "text[]" => array(rng, TEXTS, kind),
        "jsonb[]" => array(rng, JSONS, kind),
        "uuid" => uuid(rng, known),
        "uuid[]" => uuids(rng, known),
        "interval" => (*rng.pick(INTERVALS)).to_owned(),
        "jsonb" => (*rng.pick(JSONS)).to_owned(),
        "timestamp with time zone" => (*rng.pick(TIMES)).to_owned(),
        "integer" => (*rng.pick(INTEGERS)).to_owned(),
        "bigint" if rng.below(2) == 0 => format!("({})", rng.next_u64() as i64),
        "bigint" => (*rng.pick(LONGS)).to_owned(),
        "boolean" => (*rng.pick(&["true", "false"])).to_owned(),
        "regrole" => (*rng.pick(ROLES)).to_owned(),
        "oid" => (*rng.pick(OIDS)).to_owned(),
        _ => panic!("no values of type {kind}"),
    };
    format!("({random})::{kind}")
}

/// Returns an array of none to two of these values, and sometimes NULL.
fn array(rng: &mut Rng, values: &[&str], kind: &str) -> String {
    let element = kind.trim_end_matches("[]");
    let count = rng.below(3);
    let mut elements: Vec<String> = (0..count)
        .map(|_| format!("({})::{element}", rng.pick(values)))
        .collect();
    if rng.below(4) == 0 {
        elements.push("NULL".to_owned());
    }
    format!("ARRAY[{}]::{kind}", elements.join(", "))
}

fn uuid(rng: &mut Rng, known: &Known) -> String {
    match rng.below(9) {
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

fn uuids(rng: &mut Rng, known: &Known) -> String {
    let (a, b) = (uuid(rng, known), uuid(rng, known));
    match rng.below(9) {
        0 => "'{}'".to_owned(),
        1 => "'{NULL,NULL}'".to_owned(),
        2 => format!("ARRAY[ARRAY[{a}, {b}], ARRAY[{b}, NULL]]::uuid[]"),
        3 => format!("('[5:6]={{NULL,' || ({a})::uuid || '}}')"),
        4 => format!("(ARRAY[{a}, {b}, {a}]::uuid[])[2:]"),
        5 => format!("array_fill(({a})::uuid, ARRAY[2, 2, 2, 2, 2, 2])"),
        6 if rng.below(50) == 0 => "(SELECT array_agg(gen_random_uuid()) FROM generate_series(1, 5000))".to_owned(),
        _ => format!("ARRAY[{a}, {b}]::uuid[]"),
    }
}
