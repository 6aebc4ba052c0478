//! Ids and tokens of sessions, derived from the session's number. Each user has one session, with the same id.

use crate::random::Random;

/// SQL for the id of session `n`.
pub const ID: &str = "('00000000-0000-4000-8' || lpad(to_hex(n), 15, '0'))::uuid";

/// SQL for the token of session `n`.
pub const TOKEN: &str = "'token-of-a-session-' || lpad(n::text, 12, '0')";

/// SQL for the identity that owns all sessions, so that the claims of one client are valid for any of them.
pub const OWNER: &str = "'00000000-0000-4000-8000-00000000beef'::uuid";

/// JWT claims as a hosted PostgREST sets them with every request.
pub const CLAIMS: &str = r#"SET request.jwt.claims = '{"aud":"authenticated","exp":1795450000,"iat":1795446400,"iss":"https://example.org/auth/v1","sub":"00000000-0000-4000-8000-00000000beef","email":"someone@example.org","phone":"","app_metadata":{"provider":"email","providers":["email"]},"user_metadata":{"name":"Someone"},"role":"authenticated","aal":"aal1","session_id":"00000000-0000-4000-8000-000000000001"}'"#;

/// Returns the id of a session, the same as `ID`.
pub fn id(number: u64) -> [u8; 16] {
    let mut id = *b"\0\0\0\0\0\0\x40\0\x80\0\0\0\0\0\0\0";
    id[8..].copy_from_slice(&(number | 1 << 63).to_be_bytes());
    id
}

/// Returns the id of a session as text.
pub fn id_text(number: u64) -> String {
    let low = number & 0xFFFF_FFFF_FFFF;
    let high = (number >> 48) & 0xFFF;
    format!("00000000-0000-4000-8{high:03x}-{low:012x}")
}

/// Returns the token of a session, the same as `TOKEN`.
pub fn token(number: u64) -> String {
    format!("token-of-a-session-{number:012}")
}

/// Parameter: the id of a random session.
pub fn random_id(random: &mut Random, sessions: u64, out: &mut Vec<u8>) -> u64 {
    out.extend_from_slice(&id(random.below(sessions)));
    1
}

/// Parameter: the token of a random session.
pub fn random_token(random: &mut Random, sessions: u64, out: &mut Vec<u8>) -> u64 {
    out.extend_from_slice(token(random.below(sessions)).as_bytes());
    1
}

/// Parameter: an array of the ids of 1,000 random sessions.
pub fn random_1000_ids(random: &mut Random, sessions: u64, out: &mut Vec<u8>) -> u64 {
    let numbers: Vec<u64> = (0..1000).map(|_| random.below(sessions)).collect();
    array(&numbers, out);
    1000
}

/// Writes a `uuid[]` of these sessions' ids in binary format.
pub fn array(numbers: &[u64], out: &mut Vec<u8>) {
    write_array(UUID, numbers.iter().map(|number| id(*number)), out);
}

/// Writes a `text[]` of these sessions' tokens in binary format.
pub fn token_array(numbers: &[u64], out: &mut Vec<u8>) {
    write_array(TEXT, numbers.iter().map(|number| token(*number)), out);
}

/// Types in PostgreSQL's catalog.
const UUID: i32 = 2950;
const TEXT: i32 = 25;

fn write_array(of_type: i32, elements: impl ExactSizeIterator<Item: AsRef<[u8]>>, out: &mut Vec<u8>) {
    // Number of dimensions, null flag, element type, size, lower bound.
    for number in [1, 0, of_type, elements.len() as i32, 1] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    for element in elements {
        let bytes = element.as_ref();
        out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        out.extend_from_slice(bytes);
    }
}
