//! What goes wrong, said to a person: one plain sentence, and what to do.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio_postgres::error::SqlState;

#[derive(Debug)]
pub enum Failure {
    SignedOut,
    NoSuchUser,
    /// The request makes no sense, for this reason.
    Bad(&'static str),
    TooLarge,
    Database(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        Failure::Database(error)
    }
}

impl Failure {
    fn answer(&self) -> (StatusCode, &str) {
        match self {
            Failure::SignedOut => (
                StatusCode::UNAUTHORIZED,
                "You are signed out. Please sign in again.",
            ),
            Failure::NoSuchUser => (
                StatusCode::NOT_FOUND,
                "There is no such user. Please choose another.",
            ),
            Failure::Bad(reason) => (StatusCode::BAD_REQUEST, reason),
            Failure::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "That is too much for one request: 4 kB is the most.",
            ),
            Failure::Database(error) => Failure::of_database(error),
        }
    }

    fn of_database(error: &tokio_postgres::Error) -> (StatusCode, &str) {
        const UNREACHABLE: (StatusCode, &str) = (
            StatusCode::SERVICE_UNAVAILABLE,
            "The database cannot be reached at the moment. Nothing is lost; please try again shortly.",
        );
        let (Some(code), Some(said)) = (error.code(), error.as_db_error()) else {
            // No error of the server's: the connection is the trouble.
            return UNREACHABLE;
        };
        match code {
            &SqlState::INSUFFICIENT_PRIVILEGE => (StatusCode::FORBIDDEN, said.message()),
            &SqlState::INVALID_PARAMETER_VALUE => (StatusCode::BAD_REQUEST, said.message()),
            &SqlState::INVALID_TEXT_REPRESENTATION => {
                (StatusCode::BAD_REQUEST, "That is no id: an id is a UUID.")
            }
            code if code.code().starts_with("22") => (
                StatusCode::BAD_REQUEST,
                "There is something in it that makes no sense.",
            ),
            &SqlState::CONFIGURATION_LIMIT_EXCEEDED => {
                (StatusCode::TOO_MANY_REQUESTS, said.message())
            }
            // Shutting down, starting up, or full.
            code if code.code().starts_with("57P") || code.code().starts_with("53") => UNREACHABLE,
            _ => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong on our side. It has been noted; please try again.",
            ),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, said) = self.answer();
        if status.is_server_error() {
            // The whole of it is for us, not for them.
            eprintln!("error: {self:?}");
        }
        (status, axum::Json(serde_json::json!({ "message": said }))).into_response()
    }
}
