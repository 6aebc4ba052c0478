//! The HTTP routes, and the pages.

use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::json;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutLayer};

use crate::events::events;
use crate::request::AppState;
use crate::{login, rpc};

const MAX_BODY: usize = 4096;
/// How long a request may be silent before its body is complete, and how long it may take to be answered.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

pub fn routes(state: AppState) -> Router {
    Router::new()
        .route("/", asset("text/html", include_str!("../web/index.html")))
        .route("/login", asset("text/html", include_str!("../web/login.html")))
        .route("/style.css", asset("text/css", include_str!("../web/style.css")))
        .route("/users.js", asset("text/javascript", include_str!("../web/users.js")))
        .route("/login.js", asset("text/javascript", include_str!("../web/login.js")))
        .route(
            "/presence.js",
            asset("text/javascript", include_str!("../web/presence.js")),
        )
        .route("/api/users", get(login::users))
        .route("/api/login", post(login::log_in))
        .route("/api/logout", post(login::log_out))
        .route("/api/events", get(events))
        .route("/rpc/start_session", post(rpc::start_session))
        .route("/rpc/heartbeat", post(rpc::heartbeat))
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

fn asset(mime_type: &'static str, text: &'static str) -> MethodRouter<AppState> {
    get(async move || {
        let content_type = format!("{mime_type}; charset=utf-8");
        let policy = "default-src 'self'; img-src 'self' data:; worker-src blob:; frame-ancestors 'none'";
        let headers = [
            (header::CONTENT_TYPE, content_type.as_str()),
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (headers, text).into_response()
    })
}
