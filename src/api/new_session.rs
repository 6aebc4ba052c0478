//! A session that is started, or resumed by its token.

use pgrx::pg_sys;
use uuid::Uuid;

use super::caller::Subject;
use crate::{
    pg::{errors, random},
    roster::{self, Key, Owner},
    rules::{
        time::Micros,
        token::{self, Digest},
    },
    session::{self, Answer},
    settings,
    store::{
        statement::{Snapshot, Statement},
        value::Value,
    },
    triggers::session_limit,
};

/// A session to be started, but for its token.
pub struct NewSession<'a> {
    pub subject: &'a Subject,
    /// A jsonb that is known to be fit to be stored.
    pub metadata: Option<pg_sys::Datum>,
    pub now: Micros,
    pub expires_at: Micros,
}

/// The token is somebody else's, or that of an ended session. Which of them is not said.
#[derive(Clone, Copy, Debug)]
pub struct Refused;

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
    static ENDED: Statement = const { Statement::new(
        |s| format!("SELECT id FROM {s}.user_sessions WHERE session_token = $1 AND ended_at IS NOT NULL LIMIT 1"),
        &[pg_sys::TEXTOID],
    ) };
}

/// Refuses what cannot be a client's own session token, with 22023.
pub fn check_token(token: &str) {
    if token::check(token).is_err() {
        errors::weak_token();
    }
    if Digest::parse(token).is_some() {
        errors::bad_value(
            "a digest is not a session token",
            "Whoever can read a session's row knows its digest, so it is not a secret.",
            "Leave session_token out to get one of 256 random bits.",
        );
    }
}

impl NewSession<'_> {
    /// Starts the session, whose token nobody else has. Returns its id. Errors: 53400 where a client has too many.
    pub fn start_with_new_token(&self, digest: Digest) -> Uuid {
        self.insert(digest).unwrap_or_else(|| errors::try_again())
    }

    /// Resumes the session with this token if it is the subject's, and starts it if there is none. Returns its id and when
    /// it expires. Errors: 53400 where a client has too many sessions, 40001 where others keep changing it.
    pub fn resume_or_start(&self, digest: Digest) -> Result<(Uuid, Micros), Refused> {
        if let Some(known) = roster::tenant().session(&Key::Digest(digest), self.now, settings::active_timeout()) {
            if known.ended || !self.owns(known.user_id, known.auth_id) {
                return Err(Refused);
            }
            if resume(known.id)? {
                return Ok((known.id, known.expires_at));
            }
        }
        let text = digest.to_text();
        // Somebody else may start it between our read and our insert, and may end it after that.
        for _ in 0..8 {
            let found = FIND.with(|find| {
                find.read(Snapshot::Latest, &[Value::Text(&text)], |rows| {
                    let row = rows.first()?;
                    let owned = self.owns(row.uuid(2)?, row.uuid(3)?);
                    Some((row.uuid(1)?, row.time(4)?, owned && row.bool(5) == Some(false)))
                })
            });
            match found {
                Some((_, _, false)) => return Err(Refused),
                Some((id, expires_at, true)) => {
                    if resume(id)? {
                        return Ok((id, expires_at));
                    }
                }
                None => {
                    if let Some(id) = self.insert(digest) {
                        // The insert may have waited for a transaction that started the session and ended it.
                        let has_ended = ENDED
                            .with(|ended| ended.read(Snapshot::Latest, &[Value::Text(&text)], |rows| rows.count() > 0));
                        return match has_ended {
                            true => errors::not_permitted(),
                            false => Ok((id, self.expires_at)),
                        };
                    }
                }
            }
        }
        errors::try_again()
    }

    /// Writes the row. Returns `None` if a session that has not ended has the token.
    fn insert(&self, digest: Digest) -> Option<Uuid> {
        if !self.subject.by_service {
            session_limit::check(self.subject.user_id, self.now);
        }
        let id = random::id();
        let values = [
            Value::Uuid(&id),
            Value::Uuid(&self.subject.user_id),
            Value::Uuid(&self.subject.auth_id),
            Value::Text(&digest.to_text()),
            Value::Time(self.now),
            Value::Time(self.expires_at),
            self.metadata.map_or(Value::Null, Value::Datum),
            self.subject.user_key.as_deref().into(),
        ];
        let written = INSERT.with(|insert| insert.write(&values, |rows| rows.count()));
        (written > 0).then_some(id)
    }

    fn owns(&self, user_id: Uuid, auth_id: Uuid) -> bool {
        user_id == self.subject.user_id && (self.subject.by_service || auth_id == self.subject.auth_id)
    }
}

/// Beats the session. Returns false if it is gone; refused if it has ended.
fn resume(id: Uuid) -> Result<bool, Refused> {
    match session::heartbeat(Key::Id(id), Owner::Any) {
        Answer::Ok => Ok(true),
        Answer::Ended => Err(Refused),
        Answer::Unknown => Ok(false),
    }
}
