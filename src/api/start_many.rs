//! Starts many sessions in one call, for gateways.

use super::{
    args::{ArrayArg, Metadata, to_uuid},
    caller::{self, Subject},
    new_session::{NewSession, NewSessions, Refused, check_token},
    result::ResultSet,
    start::expiry,
};
use crate::{
    pg::{compat, errors, text::Text},
    rules::token::Digest,
    store::value::Value,
};
use pgrx::pg_extern;

/// Sessions started by one statement.
const BATCH: usize = 1000;

/// Starts a session for each position of the arrays, or resumes the one with the same token. Returns a row for each
/// position, in order; `session_id` is NULL where the token is another user's or its session has ended.
///
/// A position names its user by id, by key, or by both. A session without a token can only be used by its id. One
/// element of `metadata` serves for all. Errors: 22023 where the arrays differ in length, a position names no user, or
/// a token or metadata is invalid; 42501 where the caller is not a service; 40001 where others keep changing a session;
/// 25006 on a standby; 55000 where the library is not preloaded.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.start_sessions(
    user_ids pg_catalog.uuid[] DEFAULT NULL,
    user_keys pg_catalog.text[] DEFAULT NULL,
    session_tokens pg_catalog.text[] DEFAULT NULL,
    metadata pg_catalog.jsonb[] DEFAULT NULL
) RETURNS TABLE (user_id pg_catalog.uuid, session_id pg_catalog.uuid)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn start_sessions(
    user_ids: Option<ArrayArg<pgrx::Uuid>>,
    user_keys: Option<ArrayArg<Text>>,
    session_tokens: Option<ArrayArg<Text>>,
    metadata: Option<ArrayArg<Metadata>>,
    mut rows: ResultSet,
) -> ResultSet {
    caller::require_writable();
    caller::require_service();
    let length = match (&user_ids, &user_keys) {
        (Some(ids), _) => ids.len(),
        (None, Some(keys)) => keys.len(),
        (None, None) => errors::bad_value(
            "user_ids or user_keys must be specified",
            "Each position of user_ids or user_keys starts one session.",
            "Pass user_ids, or user_keys where the application's ids are not uuids.",
        ),
    };
    let fits = |other: Option<usize>| other.is_none_or(|other| other == length);
    if !fits(user_keys.as_ref().map(ArrayArg::len))
        || !fits(session_tokens.as_ref().map(ArrayArg::len))
        || !(fits(metadata.as_ref().map(ArrayArg::len)) || metadata.as_ref().map(ArrayArg::len) == Some(1))
    {
        errors::bad_value(
            "arrays must have the same length",
            "Each position of the arrays describes one session; one element of metadata serves for all.",
            "Pass NULL elements where a position has no value.",
        );
    }
    // All arguments are checked before anything is written.
    if let Some(tokens) = &session_tokens {
        (0..length)
            .filter_map(|n| tokens.get(n))
            .for_each(|token| check_token(&token));
    }
    let metadata_of = |n: usize| {
        let metadata = metadata.as_ref()?;
        metadata.get(if metadata.len() == 1 { 0 } else { n })
    };
    (0..length).filter_map(metadata_of).for_each(|metadata| {
        metadata.validated();
    });

    // One element serves for all.
    let shared_metadata = metadata.as_ref().filter(|metadata| metadata.len() == 1);
    let shared_metadata = shared_metadata
        .and_then(|metadata| metadata.get(0))
        .map(Metadata::datum);
    for first in (0..length).step_by(BATCH) {
        let now = compat::now();
        let expires_at = expiry(now, None, true);
        let mut new = NewSessions::default();
        for n in first..length.min(first + BATCH) {
            pgrx::check_for_interrupts!();
            let user_id = user_ids.as_ref().and_then(|ids| ids.get(n)).map(to_uuid);
            let user_key = user_keys.as_ref().and_then(|keys| keys.get(n));
            let subject = Subject::of(user_id, user_key.as_deref(), None);
            let user_id = subject.user_id;
            let metadata = metadata_of(n).map(Metadata::datum);
            let id = match session_tokens.as_ref().and_then(|tokens| tokens.get(n)) {
                Some(token) => {
                    let session = NewSession {
                        subject: &subject,
                        metadata,
                        now,
                        expires_at,
                    };
                    match session.resume_or_start(Digest::of(&token)) {
                        Ok((id, _)) => Some(id),
                        Err(Refused) => None,
                    }
                }
                None => Some(new.add(subject, metadata.filter(|_| shared_metadata.is_none()))),
            };
            rows.push(&[Value::Uuid(&user_id), id.as_ref().into()]);
        }
        new.start(now, expires_at, shared_metadata);
    }
    rows
}
