//! Session start: a durable row, written once and resumed by its token.

use super::args::{self, Metadata, Uuids};
use super::caller::{self, Who};
use super::rows::{Composite, Set, ToRow};
use crate::core::time::{Micros, USECS_PER_SEC};
use crate::core::token::{self, Digest};
use crate::roster::{self, Key, Owner};
use crate::store::statement::{Sees, Statement};
use crate::store::value::Value;
use crate::sync::{self, Answer};
use crate::text::Text;
use crate::{compat, errors, guard, random, settings};
use pgrx::datum::Interval;
use pgrx::{IntoDatum, direct_function_call, pg_extern, pg_sys};
use uuid::Uuid;

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
    caller::must_write();
    let who = Who::of(
        user_id.map(own_uuid),
        user_key.as_deref(),
        auth_id.map(own_uuid),
    );
    let now = compat::now();
    let session = New {
        who: &who,
        metadata: metadata.map(Metadata::checked),
        now,
        expires_at: expiry(now, lifetime, who.by_service),
    };
    let (id, token, expires_at) = match session_token.as_deref() {
        Some(token) => {
            if token::check(token).is_err() {
                errors::weak_token();
            }
            if Digest::parse(token).is_some() {
                errors::bad_value(
                    "a digest is no session token",
                    "Who may read a session's row knows its digest, so it is no secret.",
                    "Leave session_token out to be given one of 256 random bits.",
                );
            }
            let (id, expires_at) = session.resume_or_start(Digest::of(token));
            (id, token.to_owned(), expires_at)
        }
        None => {
            let token = token::generate(random::bytes());
            match session.start(Digest::of(&token)) {
                Some(id) => (id, token, session.expires_at),
                None => errors::try_again(),
            }
        }
    };
    Composite(Started {
        id,
        token,
        expires_at,
        now,
    })
}

/// Starts a session for each user, for services. They are beaten and ended by id; their tokens are told to nobody.
/// Errors with 22023 where a user is NULL.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.start_sessions(
    user_ids pg_catalog.uuid[],
    metadata pg_catalog.jsonb DEFAULT NULL
) RETURNS TABLE (user_id pg_catalog.uuid, session_id pg_catalog.uuid)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn start_sessions(user_ids: Option<Uuids>, metadata: Option<Metadata>, mut started: Set) -> Set {
    caller::must_write();
    caller::must_be_service();
    let metadata = metadata.map(Metadata::checked);
    let user_ids = match user_ids {
        Some(ids) if !ids.has_nulls() => ids.ids(),
        _ => errors::bad_value(
            "user_ids must be an array of users without NULL",
            "Each element starts one session.",
            "Leave out users that are not known.",
        ),
    };
    for &user_id in user_ids {
        let now = compat::now();
        let who = Who::of(Some(user_id), None, None);
        let session = New {
            who: &who,
            metadata,
            now,
            expires_at: expiry(now, None, true),
        };
        // As good as the digest of a token that nobody knows.
        match session.start(Digest::from_bytes(random::bytes())) {
            Some(id) => started.push(&[Value::Uuid(&user_id), Value::Uuid(&id)]),
            None => errors::try_again(),
        }
    }
    started
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

/// A session to be started, but for its token.
struct New<'a> {
    who: &'a Who,
    metadata: Option<pg_sys::Datum>,
    now: Micros,
    expires_at: Micros,
}

thread_local! {
    static INSERT: Statement = const { Statement::new(
        |s| format!(
            "INSERT INTO {s}.user_sessions \
             (id, user_id, auth_id, session_token, is_active, last_activity, created_at, expires_at, metadata, user_key) \
             VALUES ($1, $2, $3, $4, true, $5, $5, $6, COALESCE($7, '{{}}'), $8) \
             ON CONFLICT (session_token) WHERE ended_at IS NULL DO NOTHING"
        ),
        &[
            pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID,
            pg_sys::TIMESTAMPTZOID, pg_sys::JSONBOID, pg_sys::TEXTOID,
        ],
    ) };
    /// The sessions with a token: the one not ended first.
    static FIND: Statement = const { Statement::new(
        |s| format!(
            "SELECT id, user_id, auth_id, expires_at, false AS ended FROM {s}.user_sessions \
             WHERE session_token = $1 AND ended_at IS NULL \
             UNION ALL \
             SELECT id, user_id, auth_id, expires_at, true FROM {s}.user_sessions \
             WHERE session_token = $1 AND ended_at IS NOT NULL \
             ORDER BY ended LIMIT 1"
        ),
        &[pg_sys::TEXTOID],
    ) };
    /// Whether a session with a token has ended.
    static ENDED: Statement = const { Statement::new(|s| format!("SELECT id FROM {s}.user_sessions \
             WHERE session_token = $1 AND ended_at IS NOT NULL LIMIT 1"),
        &[pg_sys::TEXTOID],
    ) };
}

impl New<'_> {
    /// Writes the row. None if a session that is not ended has the token.
    fn start(&self, digest: Digest) -> Option<Uuid> {
        if !self.who.by_service {
            guard::limit::check(self.who.user_id, self.now);
        }
        let id = random::id();
        let values = [
            Value::Uuid(&id),
            Value::Uuid(&self.who.user_id),
            Value::Uuid(&self.who.auth_id),
            Value::Text(&digest.to_text()),
            Value::Time(self.now),
            Value::Time(self.expires_at),
            self.metadata.map_or(Value::Null, Value::Given),
            self.who.user_key.as_deref().into(),
        ];
        let written = INSERT.with(|insert| insert.write(&values, |rows| rows.count()));
        (written > 0).then_some(id)
    }

    /// The session with this token and when it expires: resumed if the user has it, else started.
    fn resume_or_start(&self, digest: Digest) -> (Uuid, Micros) {
        if let Some(known) =
            roster::space().session(&Key::Digest(digest), self.now, settings::active_timeout())
        {
            let theirs = !self.owns(known.user_id, known.auth_id);
            if known.ended || theirs {
                errors::not_permitted();
            }
            if let Some(resumed) = resume(known.id, known.expires_at) {
                return resumed;
            }
        }
        let text = digest.to_text();
        // Somebody else may start it between our look and our insert, and may end it after that.
        for _ in 0..8 {
            let found = FIND.with(|find| {
                find.read(Sees::Latest, &[Value::Text(&text)], |rows| {
                    let row = rows.first()?;
                    let owned = self.owns(row.uuid(2)?, row.uuid(3)?);
                    Some((
                        row.uuid(1)?,
                        row.time(4)?,
                        owned && row.bool(5) == Some(false),
                    ))
                })
            });
            match found {
                Some((_, _, false)) => errors::not_permitted(),
                Some((id, expires_at, true)) => {
                    if let Some(resumed) = resume(id, expires_at) {
                        return resumed;
                    }
                }
                None => {
                    if let Some(id) = self.start(digest) {
                        // The insert may have waited for a transaction that started the session and ended it.
                        if ENDED.with(|ended| {
                            ended.read(Sees::Latest, &[Value::Text(&text)], |rows| rows.count() > 0)
                        }) {
                            errors::not_permitted();
                        }
                        return (id, self.expires_at);
                    }
                }
            }
        }
        errors::try_again()
    }

    fn owns(&self, user_id: Uuid, auth_id: Uuid) -> bool {
        user_id == self.who.user_id && (self.who.by_service || auth_id == self.who.auth_id)
    }
}

/// Beats the session. None if it is gone by now; 42501 if it has ended.
fn resume(id: Uuid, expires_at: Micros) -> Option<(Uuid, Micros)> {
    match sync::heartbeat(Key::Id(id), Owner::Any) {
        Answer::Ok => Some((id, expires_at)),
        Answer::Ended => errors::not_permitted(),
        Answer::Unknown => None,
    }
}

const LONGEST_LIFETIME: Micros = 3_660 * 24 * 60 * 60 * USECS_PER_SEC;

/// When a session of this lifetime ends. A client's is at most the server's own, which is also the default. Errors with
/// 22023 if the lifetime is not positive, or above ten years.
fn expiry(now: Micros, lifetime: Option<Interval>, by_service: bool) -> Micros {
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
    if by_service {
        wanted
    } else {
        wanted.min(usual)
    }
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
