//! Starts one session, or resumes it by its token.

use pgrx::{IntoDatum, datum::Interval, direct_function_call, pg_extern, pg_sys};
use uuid::Uuid;

use super::{
    args::{self, Metadata, to_uuid},
    caller::{self, Subject},
    new_session::{NewSession, Refused, check_token},
    result::{Composite, ToRow},
};
use crate::{
    pg::{compat, errors, random, text::Text},
    rules::{
        time::{Micros, USECS_PER_SEC},
        token::{self, Digest},
    },
    settings,
    store::value::Value,
};

/// Starts a session for a user, or resumes the one with the same token. Returns the session with its token, which is
/// stored nowhere.
///
/// A start takes effect at commit, a resumption at once. Errors: 22023 where an argument is invalid, 42501 where the
/// user or the token is another's or the token's session has ended, 53400 where a client has too many sessions, 40001
/// where others keep changing the session, 25006 on a standby, 55000 where the library is not preloaded.
#[pg_extern(
    requires = ["types"],
    sql = r#"
CREATE FUNCTION @extschema@.start_session(
    user_id pg_catalog.uuid DEFAULT NULL,
    user_key pg_catalog.text DEFAULT NULL,
    metadata pg_catalog.jsonb DEFAULT NULL,
    session_token pg_catalog.text DEFAULT NULL,
    lifetime pg_catalog.interval DEFAULT NULL,
    auth_id pg_catalog.uuid DEFAULT NULL
) RETURNS @extschema@.presence_session
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
fn start_session(
    user_id: Option<pgrx::Uuid>,
    user_key: Option<Text>,
    metadata: Option<Metadata>,
    session_token: Option<Text>,
    lifetime: Option<Interval>,
    auth_id: Option<pgrx::Uuid>,
) -> Composite<StartedSession> {
    caller::require_writable();
    let subject = Subject::of(user_id.map(to_uuid), user_key.as_deref(), auth_id.map(to_uuid));
    let now = compat::now();
    let session = NewSession {
        subject: &subject,
        metadata: metadata.map(Metadata::validated),
        now,
        expires_at: expiry(now, lifetime, subject.by_service),
    };
    let (id, token, expires_at) = match session_token.as_deref() {
        Some(token) => {
            check_token(token);
            match session.resume_or_start(Digest::of(token)) {
                Ok((id, expires_at)) => (id, token.to_owned(), expires_at),
                Err(Refused) => errors::not_permitted(),
            }
        }
        None => {
            let token = token::generate(random::bytes());
            let id = session.start_with_new_token(Digest::of(&token));
            (id, token, session.expires_at)
        }
    };
    Composite(StartedSession {
        id,
        token,
        expires_at,
        now,
    })
}

/// What `start_session()` returns.
struct StartedSession {
    id: Uuid,
    token: String,
    expires_at: Micros,
    now: Micros,
}

impl ToRow for StartedSession {
    fn with_row<R>(&self, take: impl FnOnce(&[Value]) -> R) -> R {
        take(&[
            Value::Uuid(&self.id),
            Value::Text(&self.token),
            Value::Time(self.expires_at),
            Value::Int(milliseconds(settings::heartbeat_interval())),
            Value::Int(milliseconds(settings::active_timeout())),
            Value::Time(self.now),
        ])
    }
}

/// Ten years.
const MAX_LIFETIME: Micros = 3_660 * 24 * 60 * 60 * USECS_PER_SEC;

/// Returns when a session of this lifetime expires. The default is `presence.session_lifetime`, which also limits
/// clients. Errors: 22023 where the lifetime is not positive or exceeds ten years.
pub fn expiry(now: Micros, lifetime: Option<Interval>, by_service: bool) -> Micros {
    let default = now + settings::session_lifetime();
    let Some(lifetime) = lifetime else {
        return default;
    };
    let expires_at = match later(now, lifetime) {
        Some(at) => at,
        None => errors::bad_value(
            "lifetime must be a positive interval of at most ten years",
            "",
            "Omit lifetime to use presence.session_lifetime.",
        ),
    };
    if by_service {
        expires_at
    } else {
        expires_at.min(default)
    }
}

/// Returns a time that is later than now by an interval; `None` where that is not positive or exceeds ten years.
pub fn later(now: Micros, interval: Interval) -> Option<Micros> {
    args::positive_micros(interval, MAX_LIFETIME)
        .map(|_| add_interval(now, interval))
        .filter(|&at| at > now)
}

/// Returns `at + interval` by the calendar, as SQL does.
fn add_interval(at: Micros, interval: Interval) -> Micros {
    let arguments = [at.into_datum(), interval.into_datum()];
    // SAFETY: the function takes a timestamptz and an interval, and returns a timestamptz.
    let sum = unsafe { direct_function_call::<i64>(pg_sys::timestamptz_pl_interval, &arguments) };
    sum.unwrap_or(at)
}

fn milliseconds(interval: Micros) -> i32 {
    (interval / 1000).try_into().unwrap_or(i32::MAX)
}
