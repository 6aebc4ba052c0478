//! The stream of changes, as server-sent events:
//!
//! - `hello`: who the caller is, and the server's clock
//! - `users`: all users, whether that is up to date, and if not, since when
//! - `user`: a user who has changed
//! - `disconnected`: the database cannot be reached, and since when what was sent may be out of date
//! - `signed_out`: the login has ended, and with it the stream
//! - `ping`: nothing has happened

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{sleep, timeout};

use crate::database::Caller;
use crate::error::Error;
use crate::live_users::{Update, unix_time_ms};
use crate::request::{AppState, cookie};

/// How long the stream may be silent before it sends a ping; after three times as long the page reconnects.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const VARY: (header::HeaderName, &str) = (header::VARY, "Accept");
/// How long a stream lasts. Browsers then open another, for which they must still be signed in.
pub const STREAM_LIFETIME: Duration = Duration::from_secs(300);

/// All users, then every change; or, for a browser that no stream reaches and that asks for JSON, all users. This takes
/// one query, which authenticates the caller.
pub async fn events(State(app): State<AppState>, headers: HeaderMap) -> Result<Response, Error> {
    let cookie = cookie(&headers)?.to_owned();
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepts.is_some_and(|value| value.starts_with("application/json")) {
        let own_id = user_of(&app, &cookie).await?;
        return Ok(([VARY], Json(all_users(&app, own_id))).into_response());
    }
    let place = app.streams.clone().try_acquire_owned().map_err(|_| Error::Busy)?;
    // In this order, so that a login that ends meanwhile is noticed.
    let (snapshot, updates) = app.users.subscribe();
    let own_id = user_of(&app, &cookie).await?;
    let hello = event(
        "hello",
        &json!({ "you": own_id, "server_time": unix_time_ms() }).to_string(),
    );
    let opening = stream::iter([hello, event("users", &snapshot)]);
    let subscriber = Arc::new(Subscriber {
        app,
        cookie,
        own_id,
        _place: place,
    });
    let updates = stream::unfold(Some(updates), move |updates| {
        let subscriber = subscriber.clone();
        async move { subscriber.next(updates?).await }
    });
    let events = opening.chain(updates).map(Ok::<_, Infallible>);
    let headers = [VARY, (header::HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((headers, Sse::new(events.take_until(sleep(STREAM_LIFETIME)))).into_response())
}

/// What the first two events of a stream say.
fn all_users(app: &AppState, own_id: String) -> Value {
    let (snapshot, _) = app.users.subscribe();
    let mut users: Value = serde_json::from_str(&snapshot).expect("JSON of our own");
    users["you"] = own_id.into();
    users["server_time"] = unix_time_ms().into();
    users
}

async fn user_of(app: &AppState, cookie: &str) -> Result<String, Error> {
    let sql = "SELECT presence.presence_user_id()::text";
    let rows = app.database.query(Caller::SignedIn(cookie), sql, &[]).await?;
    Ok(rows[0].get(0))
}

struct Subscriber {
    app: AppState,
    cookie: String,
    own_id: String,
    /// One of the streams that there may be, given back when this one ends.
    _place: OwnedSemaphorePermit,
}

impl Subscriber {
    /// Returns the next event, and where to receive those after it; nothing after the last one.
    async fn next(&self, mut updates: Receiver<Update>) -> Option<(Event, Option<Receiver<Update>>)> {
        loop {
            match timeout(PING_INTERVAL, updates.recv()).await {
                Ok(Ok(Update::Event { name, data })) => return Some((event(name, &data), Some(updates))),
                Ok(Ok(Update::LoginEnded { user_id })) if user_id != self.own_id => {}
                Ok(Ok(Update::LoginEnded { .. })) => match user_of(&self.app, &self.cookie).await {
                    // It was another login of the user.
                    Ok(_) => {}
                    Err(Error::SignedOut) => return Some((event("signed_out", "{}"), None)),
                    Err(_) => return None,
                },
                // The browser was too slow and has missed updates: start over with all users.
                Ok(Err(RecvError::Lagged(_))) => {
                    let (snapshot, updates) = self.app.users.subscribe();
                    let login = user_of(&self.app, &self.cookie).await;
                    return login.ok().map(|_| (event("users", &snapshot), Some(updates)));
                }
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => return Some((event("ping", "{}"), Some(updates))),
            }
        }
    }
}

fn event(name: &str, data: &str) -> Event {
    Event::default().event(name).data(data)
}
