//! The HTTP routes.

use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutLayer};

use crate::assets::assets;
use crate::events::events;
use crate::request::AppState;
use crate::{login, rpc};

const MAX_BODY: usize = 4096;
/// How long a request may be silent before its body is complete, and how long it may take to be answered.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

pub fn routes(state: AppState) -> Router {
    Router::new()
        .merge(assets())
        .route("/api/users", get(login::users))
        .route("/api/login", post(login::log_in))
        .route("/api/logout", post(login::log_out))
        .route("/api/events", get(events))
        .route("/rpc/start_session", post(rpc::start_session))
        .route("/rpc/heartbeat", post(rpc::heartbeat))
        .route("/rpc/heartbeat_idle", post(rpc::heartbeat_idle))
        .route("/rpc/set_status", post(rpc::set_status))
        .route("/rpc/clear_status", post(rpc::clear_status))
        .route("/rpc/set_invisible", post(rpc::set_invisible))
        .route("/rpc/own_presence", post(rpc::own_presence))
        .route("/rpc/end_session_by_token", post(rpc::end_session_by_token))
        .route("/rpc/release_session_by_token", post(rpc::release_session_by_token))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                Json(json!({ "message": "There is no such page." })),
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(RequestBodyTimeoutLayer::new(BODY_TIMEOUT))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            REQUEST_TIMEOUT,
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .with_state(state)
}
