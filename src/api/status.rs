//! The presence of one user.

use pgrx::{datum::TimestampWithTimeZone, pg_extern, pg_sys};
use uuid::Uuid;

use super::{args::to_uuid, presence_reader::PresenceReader, status_label::StatusLabel};
use crate::{
    identity::{self, Callable},
    pg::errors,
    rules::status::Status,
};

/// Returns a user's status, 'active', 'idle', 'busy' or 'inactive'; 'inactive' for an unknown user and for NULL. Errors:
/// 42501 where a client names another user, 55000 where the library is not preloaded.
#[pg_extern(stable, parallel_safe, requires = ["types"])]
fn user_status(user_id: Option<pgrx::Uuid>, fcinfo: pg_sys::FunctionCallInfo) -> StatusLabel {
    // SAFETY: the call frame is PostgreSQL's, of this function.
    unsafe { identity::remember_call_right(fcinfo, Callable::UserStatus) };
    let Some(id) = user_id.map(to_uuid) else {
        return StatusLabel(Status::Inactive);
    };
    require_may_see(id);
    StatusLabel(PresenceReader::begin().status(id))
}

/// Returns whether a user has a live session; false for an unknown user and for NULL. Errors: 42501 where a client
/// names another user, 55000 where the library is not preloaded.
#[pg_extern(stable, parallel_safe)]
fn is_online(user_id: Option<pgrx::Uuid>, fcinfo: pg_sys::FunctionCallInfo) -> bool {
    // SAFETY: the call frame is PostgreSQL's, of this function.
    unsafe { identity::remember_call_right(fcinfo, Callable::IsOnline) };
    user_id.is_some_and(|id| {
        let id = to_uuid(id);
        require_may_see(id);
        PresenceReader::begin().is_online(id)
    })
}

/// Returns the time of a user's last activity: exact while online, and kept after the sessions have been deleted; NULL
/// for an unknown user and for NULL. Errors: 42501 where a client names another user, 55000 where the library is not
/// preloaded.
#[pg_extern(stable, parallel_safe)]
fn last_seen(user_id: Option<pgrx::Uuid>, fcinfo: pg_sys::FunctionCallInfo) -> Option<TimestampWithTimeZone> {
    // SAFETY: the call frame is PostgreSQL's, of this function.
    unsafe { identity::remember_call_right(fcinfo, Callable::LastSeen) };
    let id = to_uuid(user_id?);
    require_may_see(id);
    let seen = PresenceReader::begin().last_seen(id);
    seen.and_then(|seen| TimestampWithTimeZone::try_from(seen).ok())
}

/// Checks that the caller may see this user's status. Errors: 42501 where the caller is not a reader and names another
/// user.
#[inline]
fn require_may_see(user_id: Uuid) {
    if !identity::is_reader() && identity::user_id() != Some(user_id) {
        errors::reader_only();
    }
}
