//! Notifications: which messages to send to listeners, and when.

use std::{
    cell::Cell,
    ffi::{CString, c_char},
    time::{Duration, Instant},
};

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys, pg_sys::panic::ErrorReport};

use super::{
    schedule::MAX_WRITE_INTERVAL,
    transaction::{self, Aborted, Failure},
};
use crate::{
    launcher::locks::{self, Holder},
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

/// Retry delay after the notification queue was full, or another error.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the commit waits at first for the lock that all commits that notify take, in any database. Nothing is swept
/// or written meanwhile.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How long it waits at most, where that lock goes from hand to hand and so the queue for it moves.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// The longest delay between two attempts where one transaction keeps the lock, such as one that waits for a standby.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The changes that are committed and not yet sent.
pub struct Notifier {
    /// The sequence number of the last message.
    last_seq: i64,
    unsent: Vec<Change>,
    /// [`Tenant::forgotten`] before the first of `unsent` was written.
    forgotten: u64,
    /// Whether to send a message without changes, because `unsent` lacks some: after a start, too many changes, a
    /// forgotten user, or a message that could not be sent.
    must_wake: bool,
    last_sent_at: Option<Instant>,
    /// Set where the last message could not be sent: the next one is not sent before this.
    retry_at: Option<Instant>,
    /// How long the next commit waits for others that notify.
    wait: Duration,
    /// The delay after the last attempt that gave up.
    retry_delay: Duration,
}

impl Notifier {
    /// Starts with a message without changes, so that listeners read what they have missed.
    pub fn new(state: &FeedState) -> Notifier {
        Notifier {
            last_seq: state.seq,
            unsent: Vec::new(),
            forgotten: 0,
            must_wake: true,
            last_sent_at: None,
            retry_at: None,
            wait: FIRST_WAIT,
            retry_delay: Duration::ZERO,
        }
    }

    /// Adds changes that are committed. `forgotten` is [`Tenant::forgotten`] before they were written.
    pub fn add(&mut self, changes: Vec<Change>, forgotten: u64) {
        if self.unsent.is_empty() {
            self.forgotten = forgotten;
        }
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
        if !self.unsent.is_empty() && tenant.forgotten() != self.forgotten {
            // One of these changes may be of a user who was forgotten since, and is blanked in the feed.
            self.must_wake = true;
            self.unsent.clear();
        }
        let messages = self.messages(state);
        let now = Instant::now();
        self.last_sent_at = Some(now);
        self.retry_at = None;
        let count = messages.len() as u64;
        if count > 0 {
            let holder = locks::notification_lock_holder();
            match notify(self.wait, messages) {
                Ok(()) => {}
                Err(Aborted::Failed(failure)) if failure.is_lock_conflict() => {
                    // They are sent later, with what has changed until then.
                    self.wait_for_others(holder);
                    return;
                }
                Err(aborted) => {
                    if let Aborted::Failed(failure) = &aborted {
                        warn_not_sent(failure);
                    }
                    // Listeners will not get these changes: the next message must not claim to follow them.
                    self.must_wake = true;
                    self.unsent.clear();
                    self.retry_at = Some(now + RETRY_AFTER);
                    return;
                }
            }
        }
        self.wait = (self.wait / 2).max(FIRST_WAIT);
        self.retry_delay = Duration::ZERO;
        tenant.worker().notifications.add(count);
        self.last_seq = state.seq;
        self.must_wake = false;
        self.unsent.clear();
    }

    /// Chooses when to try again after others have kept the lock for as long as the last attempt has waited. `holder` is
    /// who had it before. In a queue that moves, a longer wait gets there; otherwise it would only hold up the rest.
    fn wait_for_others(&mut self, holder: Option<Holder>) {
        if holder.is_some() && holder == locks::notification_lock_holder() {
            self.wait = FIRST_WAIT;
            self.retry_delay = (self.retry_delay * 2).clamp(FIRST_WAIT, MAX_RETRY_DELAY);
        } else {
            self.retry_delay = self.wait / 2;
            self.wait = (self.wait * 2).min(MAX_WAIT);
        }
        self.retry_at = Some(Instant::now() + self.retry_delay);
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

/// Notifies in a transaction of its own, whose commit waits for others for at most `wait`.
fn notify(wait: Duration, messages: Vec<String>) -> Result<(), Aborted> {
    let channel = settings::channel();
    let messages: Vec<CString> = messages
        .into_iter()
        .filter_map(|text| CString::new(text).ok())
        .collect();
    transaction::run_notify(wait, || {
        for message in &messages {
            // SAFETY: in a transaction; both are C strings, owned by the caller, so that an error leaks nothing.
            unsafe {
                pg_sys::ffi::pg_guard_ffi_boundary(|| Async_Notify(channel.as_ptr(), message.as_ptr()));
            }
        }
        fault_point::reach("notify");
    })
}

/// Logs that notifications could not be sent, at most once a minute.
fn warn_not_sent(failure: &Failure) {
    thread_local! {
        static LAST_WARNED_AT: Cell<i64> = const { Cell::new(i64::MIN) };
    }
    let now = compat::now();
    if now.saturating_sub(LAST_WARNED_AT.get()) < 60 * USECS_PER_SEC {
        return;
    }
    LAST_WARNED_AT.set(now);
    // What the commit of a transaction that notifies raises when the queue is full.
    if failure.code != PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED {
        ErrorReport::new(failure.code, "could not send notifications", pgrx::function_name!())
            .set_detail(failure.message.clone())
            .report(PgLogLevel::WARNING);
        return;
    }
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        "could not send notifications: notification queue is full",
        pgrx::function_name!(),
    )
    .set_detail("A session that executed LISTEN has been in one transaction for too long.")
    .set_hint("End that transaction. pg_notification_queue_usage() returns how full the queue is.")
    .report(PgLogLevel::WARNING);
}
