//! Errors, and the responses they become: one plain sentence for the user, and what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

use crate::log;

/// After how many seconds a client may try again, where the fault is not the client's.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("3");
const UNREACHABLE: (StatusCode, &str) = (
    StatusCode::SERVICE_UNAVAILABLE,
    "The database cannot be reached at the moment. Nothing is lost; please try again shortly.",
);

#[derive(Debug)]
pub enum Error {
    SignedOut,
    UserNotFound,
    /// The request is invalid, for this reason.
    BadRequest(&'static str),
    TooLarge,
    /// The rest of the request has not arrived in time.
    Incomplete,
    /// There are too many streams already.
    Busy,
    Database(tokio_postgres::Error),
    /// The database does not answer in time, or no connection to it is free.
    NoAnswer,
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        Error::Database(error)
    }
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Error {
        match error {
            PoolError::Backend(error) => Error::Database(error),
            _ => Error::NoAnswer,
        }
    }
}

impl Error {
    fn status_and_message(&self) -> (StatusCode, &str) {
        match self {
            Error::SignedOut => (StatusCode::UNAUTHORIZED, "You are signed out. Please sign in again."),
            Error::UserNotFound => (StatusCode::NOT_FOUND, "There is no such user. Please choose another."),
            Error::BadRequest(reason) => (StatusCode::BAD_REQUEST, reason),
            Error::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "The request is too large: the limit is 4 kB.",
            ),
            Error::Incomplete => (
                StatusCode::REQUEST_TIMEOUT,
                "The request did not arrive completely. Please try again.",
            ),
            Error::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many people are watching at the moment. Please try again shortly.",
            ),
            Error::NoAnswer => UNREACHABLE,
            Error::Database(error) => Error::of_database(error),
        }
    }

    fn of_database(error: &tokio_postgres::Error) -> (StatusCode, &str) {
        let (Some(code), Some(error)) = (error.code(), error.as_db_error()) else {
            // Not an error the server reported: the connection failed.
            return UNREACHABLE;
        };
        match code {
            &SqlState::INSUFFICIENT_PRIVILEGE => (StatusCode::FORBIDDEN, error.message()),
            &SqlState::INVALID_PARAMETER_VALUE => (StatusCode::BAD_REQUEST, error.message()),
            &SqlState::INVALID_TEXT_REPRESENTATION => {
                (StatusCode::BAD_REQUEST, "That is not a valid id: ids are UUIDs.")
            }
            code if code.code().starts_with("22") => {
                (StatusCode::BAD_REQUEST, "The request contains an invalid value.")
            }
            &SqlState::CONFIGURATION_LIMIT_EXCEEDED => (StatusCode::TOO_MANY_REQUESTS, error.message()),
            // It took too long, as behind a lock.
            &SqlState::QUERY_CANCELED => UNREACHABLE,
            // Shutting down, starting up, or out of connections or other resources.
            code if code.code().starts_with("57P") || code.code().starts_with("53") => UNREACHABLE,
            _ => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong on our side. The error has been logged; please try again.",
            ),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, message) = self.status_and_message();
        if status.is_server_error() {
            // The details go to the log, not to the user.
            log::error(format!("{self:?}"));
        }
        let body = serde_json::json!({ "message": message });
        let mut response = (status, axum::Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}
