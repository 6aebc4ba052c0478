//! Sessions: into and out of the chains of the indexes.

use uuid::Uuid;

use super::{
    atomic::{digest_words, uuid_words},
    free_list::Full,
    lock::{self, Index},
    state::SessionState,
    sweep_clock,
    writer::Writer,
};
use crate::rules::{time::SteadyTime, token::Digest};

impl Writer {
    /// A new slot for a session of `user`, in state Empty and in all chains.
    pub fn add_session(
        &self,
        tenant: usize,
        id: &Uuid,
        auth_id: &Uuid,
        digest: &Digest,
        user: u32,
    ) -> Result<u32, Full> {
        let at = self.allocate_slot(tenant)?;
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        slot.id.set(uuid_words(id));
        slot.auth_id.set(uuid_words(auth_id));
        slot.last_activity.set(SteadyTime::PAST);
        slot.release_at.clear();
        slot.expires_at.set(i64::MAX);
        slot.tenant.set(tenant as u16);
        slot.state.set(SessionState::Empty);
        slot.flags.clear();
        slot.digest.set(digest_words(digest.as_bytes()));
        slot.stamp.set(roster.load_stamp());
        slot.pins.set(0);
        slot.flushed.set(0);
        roster.seen[at as usize].set(sweep_clock::NEVER);
        roster.tenants[tenant].counts.sessions.add(1);

        let bucket = roster.id_bucket(tenant, slot.id.get());
        {
            let _held = lock::exclusive(Index::Id, bucket);
            slot.id_next.set(roster.by_id[bucket].get());
            roster.by_id[bucket].set(at);
        }
        self.link_digest(at);
        self.link_user(at, user);
        Ok(at)
    }

    /// Takes a session out of all chains and frees its slot. It must be neither Live nor pinned.
    pub fn free_session(&self, at: u32) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let tenant = slot.tenant.get() as usize;
        self.unlink_user(at);
        self.unlink_digest(at);
        let bucket = roster.id_bucket(tenant, slot.id.get());
        {
            let _held = lock::exclusive(Index::Id, bucket);
            let mut link = &roster.by_id[bucket];
            while link.get() != at {
                link = &roster.slots[link.get() as usize].id_next;
            }
            link.set(slot.id_next.get());
        }
        let counts = &roster.tenants[tenant].counts;
        counts.sessions.sub(1);
        if slot.state.get() == SessionState::Ended {
            counts.ended.sub(1);
        }
        self.release_slot(at);
    }

    fn link_digest(&self, at: u32) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let bucket = roster.digest_bucket(slot.tenant.get() as usize, slot.digest.get());
        let _held = lock::exclusive(Index::Digest, bucket);
        slot.digest_next.set(roster.by_digest[bucket].get());
        roster.by_digest[bucket].set(at);
    }

    fn unlink_digest(&self, at: u32) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let bucket = roster.digest_bucket(slot.tenant.get() as usize, slot.digest.get());
        let _held = lock::exclusive(Index::Digest, bucket);
        let mut link = &roster.by_digest[bucket];
        while link.get() != at {
            link = &roster.slots[link.get() as usize].digest_next;
        }
        link.set(slot.digest_next.get());
    }

    /// Changes a session's token.
    pub fn change_digest(&self, at: u32, digest: &Digest) {
        let slot = &self.roster.slots[at as usize];
        let words = digest_words(digest.as_bytes());
        if slot.digest.get() != words {
            self.unlink_digest(at);
            slot.digest.set(words);
            self.link_digest(at);
        }
    }

    /// Changes the identity that a session belongs to.
    pub fn change_auth_id(&self, at: u32, auth_id: &Uuid) {
        let slot = &self.roster.slots[at as usize];
        let words = uuid_words(auth_id);
        if slot.auth_id.get() != words {
            let bucket = self.roster.id_bucket(slot.tenant.get() as usize, slot.id.get());
            let _held = lock::exclusive(Index::Id, bucket);
            slot.auth_id.set(words);
        }
    }
}
