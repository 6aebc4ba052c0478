//! Some of the extension's functions, under the paths and in the form that PostgREST would serve them.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use tokio_postgres::types::ToSql;

use crate::database::Caller;
use crate::error::Error;
use crate::request::{AppState, Body, cookie, parse};

#[derive(Deserialize)]
struct StartSession {
    session_token: Option<String>,
    metadata: Option<Value>,
}

pub async fn start_session(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Error> {
    let args: StartSession = parse(&headers, body)?;
    let sql = "SELECT to_json(s), presence.presence_user_id()::text
               FROM presence.start_session(session_token => $1, metadata => $2) s";
    call_signed_in(&app, &headers, sql, &[&args.session_token, &args.metadata]).await
}

#[derive(Deserialize)]
struct Heartbeat {
    session_id: String,
}

pub async fn heartbeat(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Error> {
    let args: Heartbeat = parse(&headers, body)?;
    let sql = "SELECT to_json(presence.heartbeat($1::text::uuid)), NULL";
    call_signed_in(&app, &headers, sql, &[&args.session_id]).await
}

/// What a page in the mode `idle` sends while nobody is there.
pub async fn heartbeat_idle(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Error> {
    let args: Heartbeat = parse(&headers, body)?;
    let sql = "SELECT to_json(presence.heartbeat_idle($1::text::uuid)), NULL";
    call_signed_in(&app, &headers, sql, &[&args.session_id]).await
}

/// Without the argument `user_id`: a status is always that of the caller. Who passes it is refused, not misunderstood.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetStatus {
    status: Option<String>,
    status_text: Option<String>,
    emoji: Option<String>,
    expires_in: Option<String>,
    source: Option<String>,
}

pub async fn set_status(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Error> {
    let args: SetStatus = parse(&headers, body)?;
    let sql = "SELECT to_json(s), s.user_id::text
               FROM presence.set_status($1, $2, $3, $4::text::interval, coalesce($5, 'manual')) s";
    let params: [&(dyn ToSql + Sync); 5] = [
        &args.status,
        &args.status_text,
        &args.emoji,
        &args.expires_in,
        &args.source,
    ];
    call_signed_in(&app, &headers, sql, &params).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClearStatus {
    source: Option<String>,
}

pub async fn clear_status(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Error> {
    let args: ClearStatus = parse(&headers, body)?;
    let sql = "SELECT to_json(presence.clear_status(coalesce($1, 'manual'))), presence.presence_user_id()::text";
    call_signed_in(&app, &headers, sql, &[&args.source]).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetInvisible {
    invisible: bool,
    expires_in: Option<String>,
}

pub async fn set_invisible(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Error> {
    let args: SetInvisible = parse(&headers, body)?;
    let sql = "SELECT 'null'::json, presence.presence_user_id()::text
               FROM presence.set_invisible($1, $2::text::interval)";
    call_signed_in(&app, &headers, sql, &[&args.invisible, &args.expires_in]).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnPresence {}

/// What the caller is, hidden or not, which nobody else is told.
pub async fn own_presence(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Error> {
    let OwnPresence {} = parse(&headers, body)?;
    let sql = "SELECT to_json(p), NULL FROM presence.own_presence() p";
    call_signed_in(&app, &headers, sql, &[]).await
}

/// Calls a function as the signed-in user. The query returns its result, and the user to read again, if any.
async fn call_signed_in(
    app: &AppState,
    headers: &HeaderMap,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
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
pub async fn release_session_by_token(
    State(app): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Error> {
    let args = parse(&headers, body)?;
    let sql = "SELECT to_json(presence.release_session_by_token($1))";
    call_anonymous(&app, sql, args).await
}

pub async fn end_session_by_token(
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
