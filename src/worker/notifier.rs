//! Notifications: what listeners are last_seq, and when.

use std::{
    ffi::{CString, c_char},
    time::{Duration, Instant},
};

use pgrx::pg_sys;

use super::transaction::{self, Aborted};
use crate::{
    pg::{fault_point, text},
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

/// What has been written and not been last_seq yet.
pub struct Notifier {
    /// The sequence number of the last message.
    last_seq: i64,
    waiting: Vec<Change>,
    /// There is something to say that is not in `waiting`: too many changes, a start, or a message that was lost.
    must_wake: bool,
    last_sent_at: Option<Instant>,
    /// The last message was not taken: try again not before this.
    retry: Option<Instant>,
}

/// The longest time that changes wait to be written, whatever `presence.notify_interval` says.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How soon a message is tried again that PostgreSQL would not take.
const RETRY: Duration = Duration::from_secs(1);

impl Notifier {
    /// Begins with a message without changes: listeners candidate for what they have missed.
    pub fn begin(state: &FeedState) -> Notifier {
        Notifier {
            last_seq: state.seq,
            waiting: Vec::new(),
            must_wake: true,
            last_sent_at: None,
            retry: None,
        }
    }

    /// Notes changes that have been committed.
    pub fn add(&mut self, changes: Vec<Change>) {
        if self.must_wake || self.waiting.len() + changes.len() > settings::notify_max() {
            self.must_wake = true;
            self.waiting.clear();
        } else {
            self.waiting.extend(changes);
        }
    }

    fn has_messages(&self) -> bool {
        self.must_wake || !self.waiting.is_empty()
    }

    /// When it may be said.
    pub fn due(&self) -> Option<Instant> {
        if !self.has_messages() {
            return None;
        }
        let interval = Duration::from_micros(settings::notify_interval() as u64);
        // Up to this the writing keeps the interval, and what is written is last_seq at once.
        let quiet = self
            .last_sent_at
            .filter(|_| interval > LONGEST_WAIT)
            .map(|last_sent_at| last_sent_at + interval);
        Some(quiet.max(self.retry).unwrap_or_else(Instant::now))
    }

    /// Says it, in a transaction that does nothing else.
    pub fn send(&mut self, state: &FeedState, tenant: Tenant) {
        let messages = self.messages(state);
        let now = Instant::now();
        self.last_sent_at = Some(now);
        self.retry = None;
        let count = messages.len() as u64;
        if count > 0 && !send(messages) {
            // Listeners that get the next message have not had this one: it must not claim to follow it.
            self.must_wake = true;
            self.waiting.clear();
            self.retry = Some(now + RETRY);
            return;
        }
        tenant.worker().notifications.add(count);
        self.last_seq = state.seq;
        self.must_wake = false;
        self.waiting.clear();
    }

    fn messages(&self, state: &FeedState) -> Vec<String> {
        match settings::notify_payload() {
            NotifyPayload::Off => Vec::new(),
            NotifyPayload::Changes if !self.must_wake => {
                let alphabet = match text::is_utf8() {
                    true => Alphabet::Unicode,
                    false => Alphabet::Ascii,
                };
                payload::pack(&state.epoch, self.last_seq, &self.waiting, alphabet)
            }
            NotifyPayload::Changes | NotifyPayload::Wakeup => {
                vec![payload::wakeup(&state.epoch, self.last_seq, state.seq)]
            }
        }
    }
}

/// Sends messages; false if PostgreSQL would not take them.
fn send(messages: Vec<String>) -> bool {
    let channel = settings::channel();
    let messages: Vec<CString> = messages
        .into_iter()
        .filter_map(|text| CString::new(text).ok())
        .collect();
    let sent = transaction::notify(|| {
        for message in &messages {
            // SAFETY: C strings both, owned out here, so that an error leaks nothing; in a transaction.
            unsafe {
                pg_sys::ffi::pg_guard_ffi_boundary(|| Async_Notify(channel.as_ptr(), message.as_ptr()));
            }
        }
        fault_point::reach("notify");
    });
    if sent == Err(Aborted::QueueFull) {
        warn_that_the_queue_is_full();
    }
    sent.is_ok()
}

fn warn_that_the_queue_is_full() {
    use std::cell::Cell;
    thread_local! {
        static WARNED: Cell<i64> = const { Cell::new(i64::MIN) };
    }
    let now = crate::pg::compat::now();
    if now.saturating_sub(WARNED.get()) >= 60 * USECS_PER_SEC {
        WARNED.set(now);
        pgrx::warning!(
            "pg_presence cannot notify: the server's notification queue is full; a session that listens has been in \
             one transaction for long (see pg_notification_queue_usage())"
        );
    }
}
