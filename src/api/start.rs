//! Session start: a durable row, written once and resumed by its token.

use pgrx::{IntoDatum, datum::Interval, direct_function_call, pg_extern, pg_sys};
use uuid::Uuid;

use super::{
    args::{self, Metadata},
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

/// Starts a session for a user, or resumes the one with the same token. The token is returned here and stored nowhere.
///
/// Takes effect at commit, a resumption at once. Errors with 22023 on values that make no sense, with 42501 on somebody
/// else's user or token and on the token of an ended session, with 53400 where a client has too many sessions, with
/// 25006 on a standby.
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
) -> Composite<Started> {
    caller::require_writable();
    let subject = Subject::of(user_id.map(own_uuid), user_key.as_deref(), auth_id.map(own_uuid));
    let now = compat::now();
    let session = NewSession {
        subject: &subject,
        metadata: metadata.map(Metadata::checked),
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
    Composite(Started {
        id,
        token,
        expires_at,
        now,
    })
}

/// What start_session returns.
struct Started {
    id: Uuid,
    token: String,
    expires_at: Micros,
    now: Micros,
}

impl ToRow for Started {
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

const LONGEST_LIFETIME: Micros = 3_660 * 24 * 60 * 60 * USECS_PER_SEC;

/// When a session of this lifetime ends. A client's is at most the server's own, which is also the default. Errors with
/// 22023 if the lifetime is not positive, or above ten years.
pub fn expiry(now: Micros, lifetime: Option<Interval>, by_service: bool) -> Micros {
    let usual = now + settings::session_lifetime();
    let Some(lifetime) = lifetime else {
        return usual;
    };
    let wanted = args::length(lifetime, LONGEST_LIFETIME).map(|_| after(now, lifetime));
    let wanted = match wanted.filter(|&wanted| wanted > now) {
        Some(wanted) => wanted,
        None => errors::bad_value(
            "lifetime must be a positive interval of at most ten years",
            "",
            "Leave lifetime out for presence.session_lifetime.",
        ),
    };
    if by_service { wanted } else { wanted.min(usual) }
}

/// Adds by the calendar, as SQL does.
fn after(now: Micros, interval: Interval) -> Micros {
    let arguments = [now.into_datum(), interval.into_datum()];
    // SAFETY: the function takes a time and an interval, and gives a time.
    let then = unsafe { direct_function_call::<i64>(pg_sys::timestamptz_pl_interval, &arguments) };
    then.unwrap_or(now)
}

fn own_uuid(id: pgrx::Uuid) -> Uuid {
    Uuid::from_bytes(*id)
}

fn milliseconds(interval: Micros) -> i32 {
    (interval / 1000).try_into().unwrap_or(i32::MAX)
}
