//! Ids of users whose own id is not a uuid.

use pgrx::pg_extern;

use super::caller::require_preload;
use crate::{
    pg::text::Text,
    rules::presence_id::{presence_id_int, presence_id_text},
};

/// Returns the id of a user whose own id is a text. Errors: 55000 where the library is not preloaded.
#[pg_extern(immutable, strict, parallel_safe, name = "presence_id")]
fn presence_id_of_text(key: Text) -> pgrx::Uuid {
    require_preload();
    pgrx::Uuid::from_bytes(presence_id_text(&key).into_bytes())
}

/// Returns the id of a user whose own id is an integer. Errors: 55000 where the library is not preloaded.
#[pg_extern(immutable, strict, parallel_safe, name = "presence_id")]
fn presence_id_of_integer(number: i64) -> pgrx::Uuid {
    require_preload();
    pgrx::Uuid::from_bytes(presence_id_int(number).into_bytes())
}
