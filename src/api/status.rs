//! One user's status, read against the clock.

use pgrx::{datum::TimestampWithTimeZone, pg_extern};
use uuid::Uuid;

use super::{presence_reader::PresenceReader, status_label::StatusLabel};
use crate::{identity, pg::errors, rules::status::Status};

/// A user's status: 'active' or 'inactive', 'inactive' for a stranger and for NULL. Errors with 42501 where a client asks
/// about somebody else.
#[pg_extern(stable, parallel_safe, requires = ["types"])]
fn user_status(user_id: Option<pgrx::Uuid>) -> StatusLabel {
    StatusLabel(Status::of(is_online(user_id)))
}

/// Whether a user has a live session; false for a stranger and for NULL. Errors with 42501 where a client asks about
/// somebody else.
#[pg_extern(stable, parallel_safe)]
fn is_online(user_id: Option<pgrx::Uuid>) -> bool {
    user_id.is_some_and(|id| {
        let id = Uuid::from_bytes(*id);
        require_may_see(id);
        PresenceReader::begin().is_online(id)
    })
}

/// When a user was last heard from: to the moment while online, and kept after the sessions are gone. NULL for a
/// stranger and for NULL. Errors with 42501 where a client asks about somebody else.
#[pg_extern(stable, parallel_safe)]
fn last_seen(user_id: Option<pgrx::Uuid>) -> Option<TimestampWithTimeZone> {
    let id = Uuid::from_bytes(*user_id?);
    require_may_see(id);
    let reader = PresenceReader::begin();
    let seen = match reader.live(id) {
        Some(live) => live.last_activity,
        None => {
            let stored = reader.stored(&[id]);
            let kept = stored.first().and_then(|stored| stored.last_seen);
            kept.max(reader.last_activity(id))
        }
    };
    seen.and_then(|seen| TimestampWithTimeZone::try_from(seen).ok())
}

/// Errors with 42501 unless the caller may read everybody's status, or asks about itself.
#[inline]
fn require_may_see(user_id: Uuid) {
    if !identity::is_reader() && identity::user_id() != Some(user_id) {
        errors::reader_only();
    }
}
