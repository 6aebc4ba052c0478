//! What the roster knows of declared statuses: whether there may be any, and whom the worker has to look at.
//!
//! The rows are in the table alone. Where there are none, readers need not look there, for which one word is enough,
//! `nothing_declared`: the worker alone sets it, once it has seen the table empty under a lock that no writer holds beside
//! it, and triggers clear it before the commit of a row. Until the worker has looked, there may be some. `nothing_hidden` says
//! the same of the rows that hide their users.

use uuid::Uuid;

use super::{
    atomic::uuid_words, free_list::Full, layout::TenantEntry, state::UserFlag, sweep::BATCH, tenant::Tenant,
    writer::Writer,
};
use crate::rules::status::Reason;

/// How many users can be queued for whom the queue alone keeps an entry.
const MAX_QUEUED_ABSENT: u32 = 1024;

impl TenantEntry {
    #[inline]
    fn may_have_declared(&self) -> bool {
        self.nothing_declared.get() == 0
    }

    #[inline]
    pub(super) fn may_have_hidden(&self) -> bool {
        self.nothing_hidden.get() == 0 && self.may_have_declared()
    }
}

impl Tenant {
    /// Whether anything may be declared of anybody.
    #[inline]
    pub fn may_have_declared(&self) -> bool {
        self.entry().may_have_declared()
    }

    /// Notes that something may be declared. To be called before the commit of who declares it.
    pub fn set_may_have_declared(&self) {
        if !self.may_have_declared() {
            self.entry().nothing_declared.set(0);
        }
    }

    /// Whether anybody may be hidden, or have been before: whether there is a row that says so.
    #[inline]
    pub fn may_have_hidden(&self) -> bool {
        self.entry().may_have_hidden()
    }

    /// Notes that somebody may be hidden. To be called before the commit of who hides one.
    pub fn set_may_have_hidden(&self) {
        if self.entry().nothing_hidden.get() != 0 {
            self.entry().nothing_hidden.set(0);
        }
        self.set_may_have_declared();
    }

    /// Notes that nobody is hidden, nor has been. As [`Tenant::set_nothing_declared`].
    pub fn set_nothing_hidden(&self) {
        self.entry().nothing_hidden.set(1);
    }

    /// Notes that nothing is declared. The caller holds a lock on the table that excludes writers, and has seen it empty.
    pub fn set_nothing_declared(&self) {
        self.entry().nothing_declared.set(1);
    }

    /// Queues the users of a commit of whom something else is declared. The worker compares all instead where many of them
    /// have no session, as others need the room, and where it has not loaded the table yet: until then, who was heard from
    /// just before a crash looks inactive. Cannot fail.
    pub fn queue_declared<'a>(&self, users: impl Iterator<Item = &'a Uuid>) {
        let mut users = users.peekable();
        if users.peek().is_some() && !self.is_complete() && !self.in_overflow() {
            return self.request_compare();
        }
        while users.peek().is_some() {
            let writer = self.roster().write();
            let is_queued = |user: &Uuid| writer.queue_user(self.index(), user).is_ok();
            if !users.by_ref().take(BATCH).all(is_queued) {
                drop(writer);
                // To find again that there is no room takes long, and others wait.
                return self.request_compare();
            }
            match users.peek() {
                Some(_) => writer.give_way(),
                None => drop(writer),
            }
        }
    }
}

impl Writer {
    fn queue_user(&self, tenant: usize, id: &Uuid) -> Result<(), Full> {
        let words = uuid_words(id);
        let is_known = self
            .roster
            .find_user(tenant, self.roster.user_bucket(tenant, words), words)
            .is_some();
        let absent = &self.roster.tenants[tenant].dirty.absent;
        if !is_known && absent.get() >= MAX_QUEUED_ABSENT {
            return Err(Full);
        }
        // Of one who has no session here, only the table knows whether there is a key.
        let at = self.pin_user(tenant, id, !is_known)?;
        self.queue(at, Reason::Declared);
        if !is_known {
            self.roster.users[at as usize]
                .flags
                .assign(UserFlag::QueuedAbsent, true);
            absent.add(1);
        }
        // From now on the queue keeps it.
        self.unpin_user(at);
        Ok(())
    }
}
