//! How the rest of the program reaches a socket. Nobody waits for one: what a slow browser has no room for closes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::ws::{CloseFrame, Utf8Bytes};
use tokio::sync::{mpsc, watch};

/// The messages that may wait for a browser.
const MAX_WAITING: usize = 256;

/// Why the gateway closes a socket, and so what the browser does next.
#[derive(Clone, Copy)]
pub enum Farewell {
    /// It has said bye.
    Bye,
    /// Reconnect, to whichever gateway answers, with the token.
    GoingAway,
    /// The database has refused to start or find the session. It may be tried again later.
    Refused,
    /// A message was not in the protocol, too long, or too late.
    Invalid,
    /// It does not read fast enough. Reconnect with the token.
    TooSlow,
    /// The session has ended, or there is none with this token: forget the token, and log in.
    Ended,
}

impl From<Farewell> for CloseFrame {
    fn from(farewell: Farewell) -> CloseFrame {
        let (code, reason) = match farewell {
            Farewell::Bye => (1000, "bye"),
            Farewell::GoingAway => (1001, "going away"),
            Farewell::Invalid => (1008, "invalid message"),
            Farewell::Refused => (1011, "refused by the database"),
            Farewell::TooSlow => (1013, "too slow"),
            Farewell::Ended => (4001, "session ended"),
        };
        let reason = Utf8Bytes::from_static(reason);
        CloseFrame { code, reason }
    }
}

#[derive(Clone)]
pub struct Outbox {
    /// Identifies the socket.
    pub id: u64,
    messages: mpsc::Sender<Utf8Bytes>,
    farewell: Arc<watch::Sender<Option<Farewell>>>,
}

/// The socket's end of an [`Outbox`].
pub struct Inbox {
    pub messages: mpsc::Receiver<Utf8Bytes>,
    pub farewell: watch::Receiver<Option<Farewell>>,
}

impl Outbox {
    pub fn new() -> (Outbox, Inbox) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (sender, messages) = mpsc::channel(MAX_WAITING);
        let (told, farewell) = watch::channel(None);
        let outbox = Outbox {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            messages: sender,
            farewell: Arc::new(told),
        };
        (outbox, Inbox { messages, farewell })
    }

    pub fn send(&self, message: Utf8Bytes) {
        if self.messages.try_send(message).is_err() {
            self.close(Farewell::TooSlow);
        }
    }

    /// Closes the socket, unless it is being closed already.
    pub fn close(&self, farewell: Farewell) {
        self.farewell.send_if_modified(|told| {
            let is_first = told.is_none();
            *told = told.or(Some(farewell));
            is_first
        });
    }
}

/// Waits until a socket is to be closed; none if nobody knows it any more.
pub async fn farewell(told: &mut watch::Receiver<Option<Farewell>>) -> Option<Farewell> {
    told.wait_for(Option::is_some).await.ok().and_then(|told| *told)
}
