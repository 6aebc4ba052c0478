//! What a call looks a session up by, and whose sessions it may touch.

use uuid::Uuid;

use super::{atomic::uuid_words, layout::Slot};
use crate::rules::token::Digest;

/// What a session is looked up by.
#[derive(Clone, Copy)]
pub enum Key {
    Id(Uuid),
    Digest(Digest),
}

/// Whose sessions a call may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Anybody's: the caller is a service, or holds the session's token.
    Any,
    /// The client's own.
    Auth(Uuid),
    /// Nobody's: the caller has no identity.
    Nobody,
}

impl Owner {
    /// Whether a session of `auth_id` may be touched.
    #[inline]
    pub fn may(&self, auth_id: &Uuid) -> bool {
        match self {
            Owner::Any => true,
            Owner::Auth(own) => own == auth_id,
            Owner::Nobody => false,
        }
    }

    /// The same, of a slot.
    #[inline]
    pub(super) fn owns(&self, slot: &Slot) -> bool {
        match self {
            Owner::Any => true,
            Owner::Auth(id) => slot.auth_id.get() == uuid_words(id),
            Owner::Nobody => false,
        }
    }
}
