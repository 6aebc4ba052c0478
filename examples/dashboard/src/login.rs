//! Signing in and out.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::database::Caller;
use crate::error::Error;
use crate::log;
use crate::request::{AppState, Body, cookie, cookie_name, is_https, parse};

/// The users to sign in as. A real application requires a name and a password instead.
pub async fn users(State(app): State<AppState>) -> Result<Json<Vec<Value>>, Error> {
    let sql = "SELECT json_build_object('id', id, 'name', name, 'title', title, 'is_simulated', is_simulated) FROM app.users ORDER BY name";
    let rows = app.database.query(Caller::Server, sql, &[]).await?;
    Ok(Json(rows.iter().map(|row| row.get(0)).collect()))
}

#[derive(Deserialize)]
struct Login {
    user_id: String,
}

pub async fn log_in(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Response, Error> {
    let login: Login = parse(&headers, body)?;
    let sql = "SELECT app.log_in($1::text::uuid)";
    let rows = app.database.query(Caller::Server, sql, &[&login.user_id]).await?;
    let cookie: Option<String> = rows.first().and_then(|row| row.get(0));
    let cookie = cookie.ok_or(Error::UserNotFound)?;
    Ok(set_cookie(&headers, &cookie, 7 * 24 * 3600))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Logout {
    /// The presence session to end with the login.
    session_token: Option<String>,
    /// Whether to end all logins and presence sessions of the user.
    everywhere: bool,
}

/// Ends the login, and then the user's presence, as well as it can: who wants to sign out is signed out.
pub async fn log_out(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Response, Error> {
    let logout: Logout = parse(&headers, body)?;
    if let Ok(cookie) = cookie(&headers) {
        let sql = "SELECT app.log_out($1, $2)::text";
        let rows = app
            .database
            .query(Caller::Server, sql, &[&cookie, &logout.everywhere])
            .await?;
        if let Some(user_id) = rows[0].get(0) {
            if let Err(error) = end_presence(&app, user_id, &logout).await {
                log::error(format!(
                    "could not end the presence of a user who has signed out: {error:?}"
                ));
            }
            app.users.refresh(user_id.to_owned());
        }
    }
    Ok(set_cookie(&headers, "", 0))
}

async fn end_presence(app: &AppState, user_id: &str, logout: &Logout) -> Result<(), Error> {
    if logout.everywhere {
        let sql = "SELECT presence.end_user_sessions()";
        app.database.query(Caller::User(user_id), sql, &[]).await?;
    } else if let Some(token) = &logout.session_token {
        let sql = "SELECT presence.end_session_by_token($1)";
        app.database.query(Caller::Anonymous, sql, &[token]).await?;
    }
    Ok(())
}

fn set_cookie(request: &HeaderMap, value: &str, max_age: u32) -> Response {
    let name = cookie_name(request);
    let secure = if is_https(request) { "; Secure" } else { "" };
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age}{secure}");
    ([(header::SET_COOKIE, cookie)], Json(json!({}))).into_response()
}
