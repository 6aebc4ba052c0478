//! The files of the pages: those in `web`, and the package `clients/js`.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};

use crate::request::AppState;

macro_rules! assets {
    ($($path:literal $mime_type:literal $file:literal)*) => {
        Router::new()$(.route($path, asset($mime_type, include_str!($file))))*
    };
}

#[rustfmt::skip]
pub fn assets() -> Router<AppState> {
    assets! {
        "/" "text/html" "../web/index.html"
        "/login" "text/html" "../web/login.html"
        "/style.css" "text/css" "../web/style.css"
        "/users.js" "text/javascript" "../web/users.js"
        "/user-list.js" "text/javascript" "../web/user-list.js"
        "/own-status.js" "text/javascript" "../web/own-status.js"
        "/status.js" "text/javascript" "../web/status.js"
        "/text.js" "text/javascript" "../web/text.js"
        "/login.js" "text/javascript" "../web/login.js"
        "/pg-presence/index.js" "text/javascript" "../../../clients/js/src/index.js"
        "/pg-presence/session.js" "text/javascript" "../../../clients/js/src/session.js"
        "/pg-presence/idle.js" "text/javascript" "../../../clients/js/src/idle.js"
        "/pg-presence/watch.js" "text/javascript" "../../../clients/js/src/watch.js"
        "/pg-presence/request.js" "text/javascript" "../../../clients/js/src/request.js"
        "/pg-presence/browser.js" "text/javascript" "../../../clients/js/src/browser.js"
        "/pg-presence/event-stream.js" "text/javascript" "../../../clients/js/src/event-stream.js"
    }
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
