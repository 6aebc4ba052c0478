//! Errors as documented: a SQLSTATE, a message, and a detail or hint.

use postgres::error::{DbError, SqlState};

/// Returns the error that the server reported; panics if there is none.
#[track_caller]
pub fn error_of<T>(result: Result<T, postgres::Error>) -> DbError {
    match result {
        Ok(_) => panic!("should have been refused"),
        Err(error) => error
            .as_db_error()
            .cloned()
            .unwrap_or_else(|| panic!("not an error reported by the server: {error:?}")),
    }
}

/// Asserts that the server refused with this SQLSTATE and a detail or hint.
#[track_caller]
pub fn assert_refused<T>(result: Result<T, postgres::Error>, state: &SqlState) -> DbError {
    let error = error_of(result);
    assert_eq!(error.code(), state, "{error:?}");
    assert!(
        error.detail().or(error.hint()).is_some_and(|text| !text.is_empty()),
        "neither detail nor hint: {error:?}"
    );
    error
}

/// The SQLSTATE for a caller without the privilege.
pub const DENIED: &SqlState = &SqlState::INSUFFICIENT_PRIVILEGE;

/// Asserts that the server denied it. PostgreSQL's own denials come without a hint.
#[track_caller]
pub fn assert_denied<T>(result: Result<T, postgres::Error>) -> DbError {
    let error = error_of(result);
    assert_eq!(error.code(), DENIED, "{error:?}");
    error
}

/// Returns everything that a caller can learn from an error, except its location in the server's source.
pub fn error_text(error: &DbError) -> String {
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
