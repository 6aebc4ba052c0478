//! The HTTP routes: the pages, signing in, four of the extension's functions under the paths and in the form that
//! PostgREST would serve them, and the stream of changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{sleep, timeout};

use crate::assets::assets;
use crate::database::{Caller, Database};
use crate::error::Error;
use crate::live_users::{LiveUsers, Update};

const MAX_BODY: usize = 4096;
const COOKIE: &str = "presence_login";
/// How long the stream may be silent before it sends a ping; after three times as long the page reconnects.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long a stream lasts. Browsers then open another, for which they must still be signed in.
const STREAM_LIFETIME: Duration = Duration::from_secs(300);

#[derive(Clone)]
pub struct AppState {
    pub database: Arc<Database>,
    pub users: Arc<LiveUsers>,
}

pub fn routes(state: AppState) -> Router {
    Router::new()
        .merge(assets())
        .route("/api/users", get(users))
        .route("/api/login", post(log_in))
        .route("/api/logout", post(log_out))
        .route("/api/events", get(events))
        .route("/rpc/start_session", post(start_session))
        .route("/rpc/heartbeat", post(heartbeat))
        .route("/rpc/end_session_by_token", post(end_session_by_token))
        .route("/rpc/release_session_by_token", post(release_session_by_token))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                Json(json!({ "message": "There is no such page." })),
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(state)
}

/// Parses a JSON body. Other content types are refused, because a form on another site could send them (CSRF).
fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<T, Error> {
    let body = body.map_err(|_| Error::TooLarge)?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|value| value.starts_with("application/json")) {
        return Err(Error::BadRequest(
            "Please send JSON, with the content type application/json.",
        ));
    }
    serde_json::from_slice(&body).map_err(|_| Error::BadRequest("The request body is not the expected JSON."))
}

/// Returns the cookie of the login.
fn cookie(headers: &HeaderMap) -> Result<&str, Error> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|cookies| cookies.split(';'))
        .find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
        .ok_or(Error::SignedOut)
}

type Body = Result<Bytes, BytesRejection>;

// --- Signing in -------------------------------------------------------------------------

/// The users to sign in as. A real application requires a name and a password instead.
async fn users(State(app): State<AppState>) -> Result<Json<Vec<Value>>, Error> {
    let sql = "SELECT json_build_object('id', id, 'name', name, 'title', title, 'is_simulated', is_simulated) FROM app.users ORDER BY name";
    let rows = app.database.query(Caller::Server, sql, &[]).await?;
    Ok(Json(rows.iter().map(|row| row.get(0)).collect()))
}

#[derive(Deserialize)]
struct Login {
    user_id: String,
}

async fn log_in(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Response, Error> {
    let login: Login = parse(&headers, body)?;
    let sql = "SELECT app.log_in($1::text::uuid)";
    let rows = app.database.query(Caller::Server, sql, &[&login.user_id]).await?;
    let cookie: Option<String> = rows.first().and_then(|row| row.get(0));
    let cookie = cookie.ok_or(Error::UserNotFound)?;
    Ok(set_cookie(&cookie, 7 * 24 * 3600))
}

async fn log_out(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Response, Error> {
    let _: Value = parse(&headers, body)?;
    if let Ok(cookie) = cookie(&headers) {
        let sql = "SELECT app.user_of($1)::text, app.log_out($1)";
        let rows = app.database.query(Caller::Server, sql, &[&cookie]).await?;
        if let Some(user_id) = rows[0].get(0) {
            app.users.refresh(user_id);
        }
    }
    Ok(set_cookie("", 0))
}

fn set_cookie(value: &str, max_age: u32) -> Response {
    let cookie = format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age}");
    ([(header::SET_COOKIE, cookie)], Json(json!({}))).into_response()
}

// --- The extension's functions ------------------------------------------------------------

#[derive(Deserialize)]
struct StartSession {
    session_token: Option<String>,
    metadata: Option<Value>,
}

async fn start_session(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Error> {
    let args: StartSession = parse(&headers, body)?;
    let sql = "SELECT to_json(s), presence.presence_user_id()::text
               FROM presence.start_session(session_token => $1, metadata => $2) s";
    call_signed_in(&app, &headers, sql, &[&args.session_token, &args.metadata]).await
}

#[derive(Deserialize)]
struct Heartbeat {
    session_id: String,
}

async fn heartbeat(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Error> {
    let args: Heartbeat = parse(&headers, body)?;
    let sql = "SELECT to_json(presence.heartbeat($1::text::uuid)), NULL";
    call_signed_in(&app, &headers, sql, &[&args.session_id]).await
}

/// Calls a function as the signed-in user. The query returns its result, and the user to read again, if any.
async fn call_signed_in(
    app: &AppState,
    headers: &HeaderMap,
    sql: &str,
    params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Json<Value>, Error> {
    let rows = app
        .database
        .query(Caller::SignedIn(cookie(headers)?), sql, params)
        .await?;
    if let Some(user_id) = rows[0].get(1) {
        app.users.refresh(user_id);
    }
    Ok(Json(rows[0].get(0)))
}

#[derive(Deserialize)]
struct ByToken {
    session_token: String,
}

/// Called by a page that closes.
async fn release_session_by_token(
    State(app): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Error> {
    let args = parse(&headers, body)?;
    let sql = "SELECT to_json(presence.release_session_by_token($1))";
    call_anonymous(&app, sql, args).await
}

async fn end_session_by_token(
    State(app): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Error> {
    let args = parse(&headers, body)?;
    let sql = "SELECT to_json(presence.end_session_by_token($1))";
    call_anonymous(&app, sql, args).await
}

/// Calls a function that takes a session's token, and needs no cookie.
async fn call_anonymous(app: &AppState, sql: &str, args: ByToken) -> Result<Json<Value>, Error> {
    let rows = app
        .database
        .query(Caller::Anonymous, sql, &[&args.session_token])
        .await?;
    Ok(Json(rows[0].get(0)))
}

// --- The stream -----------------------------------------------------------------------------

/// All users, then every change; or, for a browser that no stream reaches and that asks for JSON, all users. This takes
/// one query, which authenticates the caller.
async fn events(State(app): State<AppState>, headers: HeaderMap) -> Result<Response, Error> {
    let sql = "SELECT presence.presence_user_id()::text";
    let rows = app
        .database
        .query(Caller::SignedIn(cookie(&headers)?), sql, &[])
        .await?;
    let own_id: String = rows[0].get(0);
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let response_headers = [
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "Accept"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    if accepts.is_some_and(|value| value.starts_with("application/json")) {
        let (snapshot, _) = app.users.subscribe();
        let mut body: Value = serde_json::from_str(&snapshot.data).expect("JSON of our own");
        body["you"] = own_id.into();
        body["server_time"] = unix_time_ms().into();
        return Ok((response_headers, Json(body)).into_response());
    }
    let stream = event_stream(app.users, own_id);
    Ok((response_headers, Sse::new(stream)).into_response())
}

fn event_stream(users: Arc<LiveUsers>, own_id: String) -> impl Stream<Item = Result<Event, Infallible>> {
    let hello = json!({ "you": own_id, "server_time": unix_time_ms() }).to_string();
    let hello = stream::once(async move { Ok(event("hello", &hello)) });
    let updates = stream::unfold(None::<Receiver<Update>>, move |receiver| {
        let users = users.clone();
        async move {
            let Some(mut receiver) = receiver else {
                let (snapshot, receiver) = users.subscribe();
                return Some((Ok(event(snapshot.name, &snapshot.data)), Some(receiver)));
            };
            match timeout(PING_INTERVAL, receiver.recv()).await {
                Ok(Ok(update)) => Some((Ok(event(update.name, &update.data)), Some(receiver))),
                // The browser was too slow and has missed updates: start over with all users.
                Ok(Err(RecvError::Lagged(_))) => Some((Ok(Event::default().comment("lagged")), None)),
                Ok(Err(RecvError::Closed)) => None,
                Err(_) => Some((Ok(event("ping", "{}")), Some(receiver))),
            }
        }
    });
    hello.chain(updates).take_until(sleep(STREAM_LIFETIME))
}

fn event(name: &str, data: &str) -> Event {
    Event::default().event(name).data(data)
}

fn unix_time_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}
