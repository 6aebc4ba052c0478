//! What browsers ask for: the pages, signing in, four functions of the extension under
//! the names and in the form PostgREST gives them, and the stream of changes.

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

use crate::board::{Board, Frame};
use crate::database::{Caller, Database};
use crate::failure::Failure;

const LARGEST_BODY: usize = 4096;
const COOKIE: &str = "presence_login";
/// How long the stream may be silent; the page takes three times as long for a cut.
const PING: Duration = Duration::from_secs(5);
/// How long a stream may last. Browsers open another, and have to be signed in for it.
const STREAM: Duration = Duration::from_secs(300);

#[derive(Clone)]
pub struct Site {
    pub database: Arc<Database>,
    pub board: Arc<Board>,
}

pub fn routes(site: Site) -> Router {
    Router::new()
        .route("/", page("text/html", include_str!("../web/index.html")))
        .route(
            "/login",
            page("text/html", include_str!("../web/login.html")),
        )
        .route(
            "/style.css",
            page("text/css", include_str!("../web/style.css")),
        )
        .route(
            "/users.js",
            page("text/javascript", include_str!("../web/users.js")),
        )
        .route(
            "/login.js",
            page("text/javascript", include_str!("../web/login.js")),
        )
        .route(
            "/presence.js",
            page("text/javascript", include_str!("../web/presence.js")),
        )
        .route("/api/people", get(people))
        .route("/api/login", post(log_in))
        .route("/api/logout", post(log_out))
        .route("/api/events", get(events))
        .route("/rpc/start_session", post(start_session))
        .route("/rpc/heartbeat", post(heartbeat))
        .route("/rpc/end_session_by_token", post(end_session_by_token))
        .route(
            "/rpc/release_session_by_token",
            post(release_session_by_token),
        )
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                Json(json!({ "message": "There is no such page." })),
            )
        })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(site)
}

fn page(kind: &'static str, text: &'static str) -> axum::routing::MethodRouter<Site> {
    get(async move || {
        let kind = format!("{kind}; charset=utf-8");
        let policy =
            "default-src 'self'; img-src 'self' data:; worker-src blob:; frame-ancestors 'none'";
        let headers = [
            (header::CONTENT_TYPE, kind.as_str()),
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (headers, text).into_response()
    })
}

/// A body, read as what it should be. Only JSON is taken: a form of another site cannot send that.
fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Failure> {
    let body = body.map_err(|_| Failure::TooLarge)?;
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return Err(Failure::Bad(
            "Please send JSON, with the content type application/json.",
        ));
    }
    serde_json::from_slice(&body)
        .map_err(|_| Failure::Bad("That is not the JSON this address takes."))
}

fn cookie(headers: &HeaderMap) -> Result<&str, Failure> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|cookies| cookies.split(';'))
        .find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
        .ok_or(Failure::SignedOut)
}

type Body = Result<Bytes, BytesRejection>;

// --- Signing in -------------------------------------------------------------------------

/// Whom one may sign in as. A product has none of this: it asks for a name and a password.
async fn people(State(site): State<Site>) -> Result<Json<Vec<Value>>, Failure> {
    let sql = "SELECT json_build_object('id', id, 'name', name, 'title', title) FROM app.users ORDER BY name";
    let rows = site.database.query(Caller::Gateway, sql, &[]).await?;
    Ok(Json(rows.iter().map(|row| row.get(0)).collect()))
}

#[derive(Deserialize)]
struct Login {
    user_id: String,
}

async fn log_in(
    State(site): State<Site>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let login: Login = read(&headers, body)?;
    let sql = "SELECT app.log_in($1::text::uuid)";
    let rows = site
        .database
        .query(Caller::Gateway, sql, &[&login.user_id])
        .await?;
    let cookie: Option<String> = rows.first().and_then(|row| row.get(0));
    let cookie = cookie.ok_or(Failure::NoSuchUser)?;
    Ok(set_cookie(&cookie, 7 * 24 * 3600))
}

async fn log_out(
    State(site): State<Site>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let _: Value = read(&headers, body)?;
    if let Ok(cookie) = cookie(&headers) {
        let sql = "SELECT app.user_of($1)::text, app.log_out($1)";
        let rows = site
            .database
            .query(Caller::Gateway, sql, &[&cookie])
            .await?;
        if let Some(user) = rows[0].get(0) {
            site.board.look_again(user);
        }
    }
    Ok(set_cookie("", 0))
}

fn set_cookie(value: &str, seconds: u32) -> Response {
    let cookie = format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}");
    ([(header::SET_COOKIE, cookie)], Json(json!({}))).into_response()
}

// --- The extension's functions ------------------------------------------------------------

#[derive(Deserialize)]
struct Start {
    session_token: Option<String>,
    metadata: Option<Value>,
}

async fn start_session(
    State(site): State<Site>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let start: Start = read(&headers, body)?;
    let sql = "SELECT to_json(s), presence.presence_user_id()::text
               FROM presence.start_session(session_token => $1, metadata => $2) s";
    member(
        &site,
        &headers,
        sql,
        &[&start.session_token, &start.metadata],
    )
    .await
}

#[derive(Deserialize)]
struct Session {
    session_id: String,
}

async fn heartbeat(
    State(site): State<Site>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let session: Session = read(&headers, body)?;
    let sql = "SELECT to_json(presence.heartbeat($1::text::uuid)), NULL";
    member(&site, &headers, sql, &[&session.session_id]).await
}

/// Runs a function for whoever is signed in; answers its result, and looks at whom it names.
async fn member(
    site: &Site,
    headers: &HeaderMap,
    sql: &str,
    params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Json<Value>, Failure> {
    let rows = site
        .database
        .query(Caller::Member(cookie(headers)?), sql, params)
        .await?;
    if let Some(user) = rows[0].get(1) {
        site.board.look_again(user);
    }
    Ok(Json(rows[0].get(0)))
}

#[derive(Deserialize)]
struct Token {
    session_token: String,
}

/// A page that closes says so with its session's token.
async fn release_session_by_token(
    State(site): State<Site>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let token = read(&headers, body)?;
    let sql = "SELECT to_json(presence.release_session_by_token($1))";
    holder(&site, sql, token).await
}

async fn end_session_by_token(
    State(site): State<Site>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let token = read(&headers, body)?;
    let sql = "SELECT to_json(presence.end_session_by_token($1))";
    holder(&site, sql, token).await
}

/// Runs a function for whoever holds a session's token, and needs no cookie.
async fn holder(site: &Site, sql: &str, token: Token) -> Result<Json<Value>, Failure> {
    let rows = site
        .database
        .query(Caller::Anonymous, sql, &[&token.session_token])
        .await?;
    Ok(Json(rows[0].get(0)))
}

// --- The stream -----------------------------------------------------------------------------

/// What is shown, and then every change of it. Costs one query, to find out who asks.
async fn events(
    State(site): State<Site>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Failure> {
    let sql = "SELECT presence.presence_user_id()::text";
    let rows = site
        .database
        .query(Caller::Member(cookie(&headers)?), sql, &[])
        .await?;
    let you: String = rows[0].get(0);
    let stream = stream_of(site.board, you);
    let headers = [
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Sse::new(stream)))
}

fn stream_of(board: Arc<Board>, you: String) -> impl Stream<Item = Result<Event, Infallible>> {
    let hello = event(
        "hello",
        &json!({ "you": you, "server_time": now() }).to_string(),
    );
    let greeting = stream::once(async { Ok(hello) });
    let rest = stream::unfold(None::<Receiver<Frame>>, move |watched| {
        let board = board.clone();
        async move {
            let Some(mut frames) = watched else {
                let (everything, frames) = board.watch();
                return Some((Ok(event(everything.name, &everything.data)), Some(frames)));
            };
            match timeout(PING, frames.recv()).await {
                Ok(Ok(frame)) => Some((Ok(event(frame.name, &frame.data)), Some(frames))),
                // Too slow for the changes: everything anew, then.
                Ok(Err(RecvError::Lagged(_))) => {
                    Some((Ok(Event::default().comment("behind")), None))
                }
                Ok(Err(RecvError::Closed)) => None,
                Err(_) => Some((Ok(event("ping", "{}")), Some(frames))),
            }
        }
    });
    greeting.chain(rest).take_until(sleep(STREAM))
}

fn event(name: &str, data: &str) -> Event {
    Event::default().event(name).data(data)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
