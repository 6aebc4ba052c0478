//! What the handlers of requests share: the state of the program, and what a request carries.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::database::Database;
use crate::error::Error;
use crate::live_users::LiveUsers;

#[derive(Clone)]
pub struct AppState {
    pub database: Arc<Database>,
    pub users: Arc<LiveUsers>,
    /// As many streams as there may be.
    pub streams: Arc<Semaphore>,
}

pub type Body = Result<Bytes, BytesRejection>;

/// Parses a JSON body. Other content types are refused, because a form on another site could send them (CSRF).
pub fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Error> {
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge,
        _ => Error::Incomplete,
    })?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|value| value.starts_with("application/json")) {
        return Err(Error::BadRequest(
            "Please send JSON, with the content type application/json.",
        ));
    }
    serde_json::from_slice(&body).map_err(|_| Error::BadRequest("The request body is not the expected JSON."))
}

/// Whether the browser uses HTTPS, as the proxy in front says.
pub fn is_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https")
}

/// The name of the login's cookie. With HTTPS no other host of the domain, and no plain HTTP, can set it.
pub fn cookie_name(headers: &HeaderMap) -> &'static str {
    if is_https(headers) {
        "__Host-presence_login"
    } else {
        "presence_login"
    }
}

/// Returns the cookie of the login.
pub fn cookie(headers: &HeaderMap) -> Result<&str, Error> {
    let name = cookie_name(headers);
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|cookies| cookies.split(';'))
        .find_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='))
        .ok_or(Error::SignedOut)
}
