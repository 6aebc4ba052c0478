//! The SQL functions about identity, and the pure ones that make ids and digests.

use pgrx::prelude::*;

use crate::core::key::{presence_id_int, presence_id_text};
use crate::core::token::Digest;
use crate::text::Text;

/// Whether the caller is trusted to act for everybody. Errors: 55000 where the library is not preloaded.
#[pg_extern(stable, parallel_safe)]
fn is_service() -> bool {
    require_preload();
    super::is_service()
}

/// The user the caller acts for; NULL without a valid identity. Errors: 55000 where the library is not preloaded.
#[pg_extern(stable, parallel_safe)]
fn presence_user_id() -> Option<pgrx::Uuid> {
    require_preload();
    super::user_id().map(to_sql)
}

/// The identity of the caller; NULL where it has no valid one. Errors: 55000 where the library is not preloaded.
#[pg_extern(stable, parallel_safe)]
fn presence_auth_id() -> Option<pgrx::Uuid> {
    require_preload();
    super::auth_id().map(to_sql)
}

/// What `user_sessions.session_token` holds for a token. Errors: 55000 where the library is not preloaded.
#[pg_extern(immutable, strict, parallel_safe)]
fn token_digest(token: Text) -> String {
    require_preload();
    Digest::of(&token).to_text()
}

/// The user id of a user known by a text. Errors: 55000 where the library is not preloaded.
#[pg_extern(immutable, strict, parallel_safe, name = "presence_id")]
fn presence_id_of_text(key: Text) -> pgrx::Uuid {
    require_preload();
    to_sql(presence_id_text(&key))
}

/// The user id of a user known by an integer. Errors: 55000 where the library is not preloaded.
#[pg_extern(immutable, strict, parallel_safe, name = "presence_id")]
fn presence_id_of_integer(key: i64) -> pgrx::Uuid {
    require_preload();
    to_sql(presence_id_int(key))
}

/// Does nothing. A role that may EXECUTE it is a service.
#[pg_extern(stable, parallel_safe)]
fn presence_service_marker() {}

fn to_sql(id: uuid::Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*id.as_bytes())
}

/// Raises 55000 where the library was not loaded with the server.
fn require_preload() {
    if !crate::settings::is_preloaded() {
        crate::errors::not_preloaded();
    }
}
