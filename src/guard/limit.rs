//! How many sessions a client may have.

use pgrx::{Spi, pg_sys};
use uuid::Uuid;

use crate::core::time::Micros;
use crate::{errors, installed, settings, store};

/// Refuses one more session, with 53400, where the user has as many that have not ended as
/// `presence.max_sessions_per_user` allows. Sessions that other transactions are just starting are not counted.
pub fn check(user_id: Uuid, now: Micros) {
    let most = settings::max_sessions_per_user() as i64;
    if count(user_id, now, most) >= most {
        errors::too_many_sessions();
    }
}

/// The user's sessions that have not ended, counted no further than `most`.
fn count(user_id: Uuid, now: Micros, most: i64) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM (SELECT FROM {}.user_sessions \
         WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 LIMIT $3) counted",
        installed::schema_name()
    );
    let user_id = pgrx::Uuid::from_bytes(*user_id.as_bytes());
    let now = pg_sys::TimestampTz::from(now);
    let counted = store::as_owner(|| {
        // SAFETY: the types are those of the values.
        let arguments = unsafe {
            [
                pgrx::datum::DatumWithOid::new(user_id, pg_sys::UUIDOID),
                pgrx::datum::DatumWithOid::new(now, pg_sys::TIMESTAMPTZOID),
                pgrx::datum::DatumWithOid::new(most, pg_sys::INT8OID),
            ]
        };
        Spi::connect(|client| {
            client
                .select(&sql, Some(1), &arguments)?
                .first()
                .get_one::<i64>()
        })
    });
    match counted {
        Ok(counted) => counted.unwrap_or(0),
        Err(error) => pgrx::error!("could not count sessions: {error}"),
    }
}
