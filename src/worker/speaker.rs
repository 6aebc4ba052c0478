//! Notifications: what listeners are told, and when.

use std::ffi::{CString, c_char};
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::{
    attempt::{self, Undone},
    tick::LONGEST_WAIT,
};
use crate::{
    core::{
        feed::{self, Alphabet, Change},
        time::USECS_PER_SEC,
    },
    faults,
    roster::Space,
    settings::{self, NotifyPayload},
    store::state::State,
    text,
};

unsafe extern "C-unwind" {
    // commands/async.h, which has no binding.
    fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

/// What has been written and not been told yet.
pub struct Speaker {
    /// The sequence number of the last message.
    told: i64,
    waiting: Vec<Change>,
    /// There is something to say that is not in `waiting`: too many changes, a start, or a message that was lost.
    untold: bool,
    spoken: Option<Instant>,
    /// The last message was not taken: try again not before this.
    retry: Option<Instant>,
}

/// How soon a message is tried again that PostgreSQL would not take.
const RETRY: Duration = Duration::from_secs(1);

impl Speaker {
    /// Begins with a message without changes: listeners look for what they have missed.
    pub fn begin(state: &State) -> Speaker {
        Speaker {
            told: state.seq,
            waiting: Vec::new(),
            untold: true,
            spoken: None,
            retry: None,
        }
    }

    /// Notes changes that have been committed.
    pub fn add(&mut self, changes: Vec<Change>) {
        if self.untold || self.waiting.len() + changes.len() > settings::notify_max() {
            self.untold = true;
            self.waiting.clear();
        } else {
            self.waiting.extend(changes);
        }
    }

    fn has_news(&self) -> bool {
        self.untold || !self.waiting.is_empty()
    }

    /// When it may be said.
    pub fn due(&self) -> Option<Instant> {
        if !self.has_news() {
            return None;
        }
        let interval = Duration::from_micros(settings::notify_interval() as u64);
        // Up to this the writing keeps the interval, and what is written is told at once.
        let quiet = self
            .spoken
            .filter(|_| interval > LONGEST_WAIT)
            .map(|spoken| spoken + interval);
        Some(quiet.max(self.retry).unwrap_or_else(Instant::now))
    }

    /// Says it, in a transaction that does nothing else.
    pub fn speak(&mut self, state: &State, space: Space) {
        let messages = self.messages(state);
        let now = Instant::now();
        self.spoken = Some(now);
        self.retry = None;
        let count = messages.len() as u64;
        if count > 0 && !send(messages) {
            // Listeners that get the next message have not had this one: it must not claim to follow it.
            self.untold = true;
            self.waiting.clear();
            self.retry = Some(now + RETRY);
            return;
        }
        space.worker().notifications.add(count);
        self.told = state.seq;
        self.untold = false;
        self.waiting.clear();
    }

    fn messages(&self, state: &State) -> Vec<String> {
        match settings::notify_payload() {
            NotifyPayload::Off => Vec::new(),
            NotifyPayload::Changes if !self.untold => {
                let alphabet = match text::is_utf8() {
                    true => Alphabet::Unicode,
                    false => Alphabet::Ascii,
                };
                feed::payloads(&state.epoch, self.told, &self.waiting, alphabet)
            }
            NotifyPayload::Changes | NotifyPayload::Wakeup => {
                vec![feed::wakeup(&state.epoch, self.told, state.seq)]
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
    let sent = attempt::notify(|| {
        for message in &messages {
            // SAFETY: C strings both, owned out here, so that an error leaks nothing; in a transaction.
            unsafe {
                pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    Async_Notify(channel.as_ptr(), message.as_ptr())
                });
            }
        }
        faults::moment("notify");
    });
    if sent == Err(Undone::QueueFull) {
        warn_that_the_queue_is_full();
    }
    sent.is_ok()
}

fn warn_that_the_queue_is_full() {
    use std::cell::Cell;
    thread_local! {
        static WARNED: Cell<i64> = const { Cell::new(i64::MIN) };
    }
    let now = crate::compat::now();
    if now.saturating_sub(WARNED.get()) >= 60 * USECS_PER_SEC {
        WARNED.set(now);
        pgrx::warning!(
            "pg_presence cannot notify: the server's notification queue is full; a session that listens has been in \
             one transaction for long (see pg_notification_queue_usage())"
        );
    }
}
