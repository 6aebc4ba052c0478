//! Notifications: which messages to send to listeners, and when.

use std::{
    cell::Cell,
    ffi::{CString, c_char},
    time::{Duration, Instant},
};

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys, pg_sys::panic::ErrorReport};

use super::{
    schedule::MAX_WRITE_INTERVAL,
    transaction::{self, Aborted},
};
use crate::{
    pg::{compat, fault_point, text},
    roster::Tenant,
    rules::{
        payload::{self, Alphabet, Change},
        time::USECS_PER_SEC,
    },
    settings::{self, NotifyPayload},
    store::feed_state::FeedState,
};

unsafe extern "C-unwind" {
    // commands/async.h, which has no binding.
    fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

/// Retry delay after the notification queue was full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The changes that are committed and not yet sent.
pub struct Notifier {
    /// The sequence number of the last message.
    last_seq: i64,
    unsent: Vec<Change>,
    /// Whether to send a message without changes, because `unsent` lacks some: after a start, too many changes, or a
    /// message that could not be sent.
    must_wake: bool,
    last_sent_at: Option<Instant>,
    /// Set where the last message could not be sent: the next one is not sent before this.
    retry_at: Option<Instant>,
}

impl Notifier {
    /// Starts with a message without changes, so that listeners read what they have missed.
    pub fn new(state: &FeedState) -> Notifier {
        Notifier {
            last_seq: state.seq,
            unsent: Vec::new(),
            must_wake: true,
            last_sent_at: None,
            retry_at: None,
        }
    }

    /// Adds changes that are committed.
    pub fn add(&mut self, changes: Vec<Change>) {
        if self.must_wake || self.unsent.len() + changes.len() > settings::notify_max() {
            self.must_wake = true;
            self.unsent.clear();
        } else {
            self.unsent.extend(changes);
        }
    }

    fn has_messages(&self) -> bool {
        self.must_wake || !self.unsent.is_empty()
    }

    /// Returns when to send, if there is anything to send.
    pub fn due(&self) -> Option<Instant> {
        if !self.has_messages() {
            return None;
        }
        let interval = Duration::from_micros(settings::notify_interval() as u64);
        // Shorter intervals are already enforced by the write step, so notify at once.
        let interval_ends = self
            .last_sent_at
            .filter(|_| interval > MAX_WRITE_INTERVAL)
            .map(|last_sent_at| last_sent_at + interval);
        Some(interval_ends.max(self.retry_at).unwrap_or_else(Instant::now))
    }

    /// Sends the messages, in a transaction that does nothing else.
    pub fn send(&mut self, state: &FeedState, tenant: Tenant) {
        let messages = self.messages(state);
        let now = Instant::now();
        self.last_sent_at = Some(now);
        self.retry_at = None;
        let count = messages.len() as u64;
        if count > 0 && !notify(messages) {
            // Listeners will not get these changes: the next message must not claim to follow them.
            self.must_wake = true;
            self.unsent.clear();
            self.retry_at = Some(now + RETRY_AFTER);
            return;
        }
        tenant.worker().notifications.add(count);
        self.last_seq = state.seq;
        self.must_wake = false;
        self.unsent.clear();
    }

    fn messages(&self, state: &FeedState) -> Vec<String> {
        match settings::notify_payload() {
            NotifyPayload::Off => Vec::new(),
            NotifyPayload::Changes if !self.must_wake => {
                let alphabet = match text::is_utf8() {
                    true => Alphabet::Unicode,
                    false => Alphabet::Ascii,
                };
                payload::pack(&state.epoch, self.last_seq, &self.unsent, alphabet)
            }
            NotifyPayload::Changes | NotifyPayload::Wakeup => {
                vec![payload::wakeup(&state.epoch, self.last_seq, state.seq)]
            }
        }
    }
}

/// Notifies in a transaction of its own. Returns false if the notification queue is full.
fn notify(messages: Vec<String>) -> bool {
    let channel = settings::channel();
    let messages: Vec<CString> = messages
        .into_iter()
        .filter_map(|text| CString::new(text).ok())
        .collect();
    let result = transaction::run_notify(|| {
        for message in &messages {
            // SAFETY: in a transaction; both are C strings, owned by the caller, so that an error leaks nothing.
            unsafe {
                pg_sys::ffi::pg_guard_ffi_boundary(|| Async_Notify(channel.as_ptr(), message.as_ptr()));
            }
        }
        fault_point::reach("notify");
    });
    if result == Err(Aborted::QueueFull) {
        warn_queue_full();
    }
    result.is_ok()
}

/// Logs that the notification queue is full, at most once a minute.
fn warn_queue_full() {
    thread_local! {
        static LAST_WARNED_AT: Cell<i64> = const { Cell::new(i64::MIN) };
    }
    let now = compat::now();
    if now.saturating_sub(LAST_WARNED_AT.get()) < 60 * USECS_PER_SEC {
        return;
    }
    LAST_WARNED_AT.set(now);
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        "could not send notifications: notification queue is full",
        pgrx::function_name!(),
    )
    .set_detail("A session that executed LISTEN has been in one transaction for too long.")
    .set_hint("End that transaction. pg_notification_queue_usage() returns how full the queue is.")
    .report(PgLogLevel::WARNING);
}
