//! The identity of the caller.

use pgrx::pg_extern;

use super::caller::require_preload;
use crate::identity;

/// Returns whether the caller may act for everybody. Errors: 55000 where the library is not preloaded.
#[pg_extern(stable, parallel_safe)]
pub fn is_service() -> bool {
    require_preload();
    identity::is_service()
}

/// Returns the user the caller acts for; NULL without a valid identity. Errors: 55000 where the library is not
/// preloaded or `presence.user_id_function` cannot be called, 42501 where the caller may not execute that function, and
/// whatever it raises.
#[pg_extern(stable, parallel_safe)]
pub fn presence_user_id() -> Option<pgrx::Uuid> {
    require_preload();
    identity::user_id().map(|id| pgrx::Uuid::from_bytes(id.into_bytes()))
}

/// Returns the identity of the caller; NULL without a valid one. Errors: 55000 where the library is not preloaded.
#[pg_extern(stable, parallel_safe)]
pub fn presence_auth_id() -> Option<pgrx::Uuid> {
    require_preload();
    identity::auth_id().map(|id| pgrx::Uuid::from_bytes(id.into_bytes()))
}
