//! Errors, as promised: a SQLSTATE, a message, and a detail or hint.

use postgres::error::{DbError, SqlState};

/// The error that the server answered with; panics when there is none.
pub fn refusal<T>(result: Result<T, postgres::Error>) -> DbError {
    match result {
        Ok(_) => panic!("should have been refused"),
        Err(error) => error
            .as_db_error()
            .cloned()
            .unwrap_or_else(|| panic!("not the server's answer: {error:?}")),
    }
}

/// Asserts that the server refused with this SQLSTATE, saying what to do about it.
pub fn refused<T>(result: Result<T, postgres::Error>, state: &SqlState) -> DbError {
    let error = refusal(result);
    assert_eq!(error.code(), state, "{error:?}");
    assert!(
        error
            .detail()
            .or(error.hint())
            .is_some_and(|text| !text.is_empty()),
        "says not what to do: {error:?}"
    );
    error
}

/// What somebody without the right to it is answered.
pub const DENIED: &SqlState = &SqlState::INSUFFICIENT_PRIVILEGE;

/// Asserts that the server denied it. PostgreSQL's own refusals come without a hint.
pub fn denied<T>(result: Result<T, postgres::Error>) -> DbError {
    let error = refusal(result);
    assert_eq!(error.code(), DENIED, "{error:?}");
    error
}

/// Everything a caller could learn from an error, but for where in the server it comes from.
pub fn text_of(error: &DbError) -> String {
    format!(
        "{:?} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        error.code(),
        error.message(),
        error.detail(),
        error.hint(),
        error.where_(),
        error.schema(),
        error.table(),
        error.column(),
        error.datatype(),
        error.constraint()
    )
}
