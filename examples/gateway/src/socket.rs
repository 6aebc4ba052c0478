//! One browser: its socket, from the handshake to the last word.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, interval_at, sleep_until, timeout};

use crate::feed::Feed;
use crate::message::{Hello, Request};
use crate::outbox::{self, Farewell, Inbox, Outbox};
use crate::sessions::{Seat, Sessions};

/// A message, such as a list of users to follow.
const MAX_MESSAGE: usize = 64 * 1024;
/// The users that it may follow by name, and how often it may say whom.
const MAX_FOLLOWED: usize = 500;
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// Of each socket; the default is 128 kB.
const READ_BUFFER: usize = 4 * 1024;
/// How long a browser may take for its first message, to take in a message, and to close.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a browser is pinged, and after which silence it is gone: it has lost its network, which no TCP reports.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const MAX_SILENCE: Duration = Duration::from_secs(75);

#[derive(Clone)]
pub struct App {
    pub sessions: Arc<Sessions>,
    pub feed: Arc<Feed>,
    /// The pages that may connect, as `https://app.example`; if there are none, those of the host that is connected to.
    pub origins: Arc<[String]>,
    /// As many sockets as there may be.
    pub places: Arc<Semaphore>,
    /// Says farewell to all sockets when the gateway stops.
    pub stop: watch::Receiver<Option<Farewell>>,
}

/// Accepts a socket.
pub async fn open(State(app): State<App>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if !is_allowed(&app.origins, &headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Ok(place) = app.places.clone().try_acquire_owned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    let upgrade = upgrade.read_buffer_size(READ_BUFFER);
    upgrade.on_upgrade(async move |mut socket| {
        let farewell = serve(app, &mut socket).await;
        let _ = timeout(TIMEOUT, close(&mut socket, farewell)).await;
        drop(place);
    })
}

/// Closes the socket. What the browser has sent is read until it closes, too, or the farewell would be lost with it.
async fn close(socket: &mut WebSocket, farewell: Option<Farewell>) -> Result<(), axum::Error> {
    if let Some(farewell) = farewell {
        socket.send(Message::Close(Some(farewell.into()))).await?;
    }
    while socket.recv().await.transpose()?.is_some() {}
    Ok(())
}

/// Whether the page that connects may. A browser says of which origin it is; other programs could say what they like.
fn is_allowed(origins: &[String], headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if origins.is_empty() {
        return origin
            .split_once("://")
            .is_some_and(|(_, authority)| Some(authority) == host);
    }
    origins.iter().any(|allowed| allowed == origin)
}

/// Returns what to say at the end, if somebody may be there to hear it.
async fn serve(mut app: App, socket: &mut WebSocket) -> Option<Farewell> {
    let hello = tokio::select! {
        hello = timeout(TIMEOUT, socket.recv()) => hello,
        farewell = outbox::farewell(&mut app.stop) => return farewell,
    };
    let Ok(Some(Ok(Message::Text(hello)))) = hello else {
        return Some(Farewell::Invalid);
    };
    let Some(hello) = Hello::parse(&hello) else {
        return Some(Farewell::Invalid);
    };
    let (outbox, inbox) = Outbox::new();
    let farewell = converse(&mut app, socket, hello, &outbox, inbox).await;
    app.feed.unsubscribe(&outbox);
    farewell
}

async fn converse(app: &mut App, socket: &mut WebSocket, hello: Hello, own: &Outbox, inbox: Inbox) -> Option<Farewell> {
    let Inbox {
        mut messages,
        mut farewell,
    } = inbox;
    let mut arrival = app.sessions.arrive(hello, own.clone());
    let mut seat: Option<Seat> = None;
    let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    let mut heard_at = Instant::now();
    let mut may_follow_at = heard_at;
    loop {
        tokio::select! {
            biased;
            farewell = outbox::farewell(&mut farewell) => return farewell,
            farewell = outbox::farewell(&mut app.stop) => return farewell,
            // If there is no seat, a farewell follows.
            Ok(seated) = &mut arrival, if seat.is_none() => {
                let session = json!({ "session": { "user_id": seated.user, "token": seated.token } });
                seat = Some(seated);
                send(socket, session.to_string()).await?;
            }
            Some(message) = messages.recv() => send(socket, message).await?,
            message = socket.recv() => {
                heard_at = Instant::now();
                match message? {
                    Ok(Message::Text(text)) => {
                        let (Some(seat), Ok(request)) = (&seat, serde_json::from_str(&text)) else {
                            return Some(Farewell::Invalid);
                        };
                        match request {
                            Request::Active => seat.set_idle(false),
                            Request::Idle => seat.set_idle(true),
                            Request::Bye => seat.bye(),
                            Request::Follow(Some(users)) if users.len() > MAX_FOLLOWED => return Some(Farewell::Invalid),
                            Request::Follow(users) => {
                                sleep_until(may_follow_at).await;
                                may_follow_at = Instant::now() + FOLLOW_INTERVAL;
                                app.feed.subscribe(own, users);
                            }
                        }
                    }
                    Ok(Message::Ping(_) | Message::Pong(_)) => {}
                    Ok(Message::Close(_)) => return None,
                    Ok(Message::Binary(_)) | Err(_) => return Some(Farewell::Invalid),
                }
            }
            _ = pings.tick() => {
                if heard_at.elapsed() > MAX_SILENCE {
                    return None;
                }
                timeout(TIMEOUT, socket.send(Message::Ping(Vec::new().into()))).await.ok()?.ok()?;
            }
        }
    }
}

/// Sends a message; none if the browser has gone, or does not take it in.
async fn send(socket: &mut WebSocket, message: impl Into<Utf8Bytes>) -> Option<()> {
    timeout(TIMEOUT, socket.send(Message::Text(message.into())))
        .await
        .ok()?
        .ok()
}
