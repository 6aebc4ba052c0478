//! Starts a session, or resumes the one with the same token.

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
        value::{self, Value},
    },
    triggers::session_limit,
};

/// A session to be started, without its token.
pub struct NewSession<'a> {
    pub subject: &'a Subject,
    /// A jsonb that has been validated.
    pub metadata: Option<pg_sys::Datum>,
    pub now: Micros,
    pub expires_at: Micros,
}

/// The token is another user's, or an ended session's. The caller is not to learn which.
#[derive(Clone, Copy, Debug)]
pub struct Refused;

/// The columns of a new row.
const COLUMNS: &str = "id, user_id, auth_id, session_token, is_active, last_activity, created_at, expires_at, metadata, \
                       user_key, ended_at";

thread_local! {
    static INSERT: Statement = const { Statement::new(
        |s| format!(
            "INSERT INTO {s}.user_sessions ({COLUMNS}) \
             VALUES ($1, $2, $3, $4, true, $5, $5, $6, COALESCE($7, '{{}}'), $8, NULL) \
             ON CONFLICT (session_token) WHERE ended_at IS NULL DO NOTHING"
        ),
        &[
            pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID,
            pg_sys::TIMESTAMPTZOID, pg_sys::JSONBOID, pg_sys::TEXTOID,
        ],
    ) };
    /// Sessions with new tokens, which no other session has. One `metadata` serves for those without their own.
    static INSERT_MANY: Statement = const { Statement::new(
        |s| format!(
            "INSERT INTO {s}.user_sessions ({COLUMNS}) \
             SELECT u.id, u.user_id, u.auth_id, u.session_token, true, $5, $5, $6, COALESCE(u.metadata, $7, '{{}}'), \
              u.user_key, NULL \
             FROM unnest($1, $2, $3, $4, $8, $9) AS u (id, user_id, auth_id, session_token, metadata, user_key)"
        ),
        &[
            pg_sys::UUIDARRAYOID, pg_sys::UUIDARRAYOID, pg_sys::UUIDARRAYOID, pg_sys::TEXTARRAYOID,
            pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::JSONBOID, pg_sys::JSONBARRAYOID,
            pg_sys::TEXTARRAYOID,
        ],
    ) };
    /// The session with a token that has not ended, else one that has.
    static FIND_BY_TOKEN: Statement = const { Statement::new(
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
    static DELETE: Statement = const { Statement::new(
        |s| format!("DELETE FROM {s}.user_sessions WHERE id = $1"),
        &[pg_sys::UUIDOID],
    ) };
    /// A session with a token that has ended.
    static FIND_ENDED: Statement = const { Statement::new(
        |s| format!("SELECT id FROM {s}.user_sessions WHERE session_token = $1 AND ended_at IS NOT NULL LIMIT 1"),
        &[pg_sys::TEXTOID],
    ) };
}

/// Checks a token that a caller has chosen. Errors: 22023 where it is weak, or a digest.
pub fn check_token(token: &str) {
    if token::check(token).is_err() {
        errors::weak_token();
    }
    if Digest::parse(token).is_some() {
        errors::bad_value(
            "session token must not be a digest",
            "Whoever can read the row of a session knows its digest, so it is not a secret.",
            "Omit session_token to get a token of 256 random bits.",
        );
    }
}

impl NewSession<'_> {
    /// Starts the session, with a token that no other session has. Returns its id. Errors: 53400 where a client has too
    /// many sessions.
    pub fn start_with_new_token(&self, digest: Digest) -> Uuid {
        self.insert(digest).unwrap_or_else(|| errors::try_again())
    }

    /// Resumes the session with this token if it is the subject's, or starts one if there is none. Returns the
    /// session's id and `expires_at`. Errors: 53400 where a client has too many sessions, 40001 where others keep
    /// changing the session.
    pub fn resume_or_start(&self, digest: Digest) -> Result<(Uuid, Micros), Refused> {
        let tenant = roster::tenant();
        let in_roster = tenant.session(&Key::Digest(digest), &tenant.now(), settings::active_timeout());
        if let Some(session) = in_roster {
            if session.ended || !self.owns(session.user_id, session.auth_id) {
                return Err(Refused);
            }
            if beat_to_resume(session.id)? {
                return Ok((session.id, session.expires_at));
            }
        }
        let text = digest.to_text();
        // Others may start the session between the read and the insert, and end it after that.
        for _ in 0..8 {
            let found = FIND_BY_TOKEN.with(|statement| {
                statement.read(Snapshot::Latest, &[Value::Text(&text)], |rows| {
                    let row = rows.first()?;
                    let owned = self.owns(row.uuid(2)?, row.uuid(3)?);
                    Some((row.uuid(1)?, row.time(4)?, owned && row.bool(5) == Some(false)))
                })
            });
            match found {
                Some((_, _, false)) => return Err(Refused),
                Some((id, expires_at, true)) => {
                    if beat_to_resume(id)? {
                        return Ok((id, expires_at));
                    }
                }
                None => {
                    if let Some(id) = self.insert(digest) {
                        // The insert may have waited for a transaction that has started and ended the session.
                        let has_ended = FIND_ENDED.with(|statement| {
                            statement.read(Snapshot::Latest, &[Value::Text(&text)], |rows| rows.count() > 0)
                        });
                        if has_ended {
                            DELETE.with(|statement| statement.write(&[Value::Uuid(&id)], |_| ()));
                            return Err(Refused);
                        }
                        return Ok((id, self.expires_at));
                    }
                }
            }
        }
        errors::try_again()
    }

    /// Inserts the row and returns its id; `None` where a session that has not ended has the token. Errors: 53400 where
    /// a client has too many sessions.
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

    /// Returns whether a session of this user and `auth_id` is the subject's; a service may resume any session of the
    /// user.
    fn owns(&self, user_id: Uuid, auth_id: Uuid) -> bool {
        user_id == self.subject.user_id && (self.subject.by_service || auth_id == self.subject.auth_id)
    }
}

/// Sessions of a service with tokens that nobody knows, to be started by one statement.
#[derive(Default)]
pub struct NewSessions {
    ids: Vec<Uuid>,
    user_ids: Vec<Uuid>,
    auth_ids: Vec<Uuid>,
    digests: Vec<String>,
    metadata: Vec<Option<pg_sys::Datum>>,
    user_keys: Vec<Option<String>>,
}

impl NewSessions {
    /// Adds a session with metadata of its own, and returns its id.
    pub fn add(&mut self, subject: Subject, metadata: Option<pg_sys::Datum>) -> Uuid {
        // Random bytes serve as the digest.
        let (id, digest) = random::id_and_bytes();
        self.ids.push(id);
        self.user_ids.push(subject.user_id);
        self.auth_ids.push(subject.auth_id);
        self.digests.push(Digest::from_bytes(digest).to_text());
        self.metadata.push(metadata);
        self.user_keys.push(subject.user_key);
        id
    }

    /// Starts the sessions. `metadata` serves for those without their own. Errors: 40001 where a trigger of the owner's has
    /// left one out.
    pub fn start(self, now: Micros, expires_at: Micros, metadata: Option<pg_sys::Datum>) {
        if self.ids.is_empty() {
            return;
        }
        let own_metadata = self.metadata.iter().any(Option::is_some);
        let user_keys = self.user_keys.iter().any(Option::is_some);
        let values = [
            Value::Uuids(&self.ids),
            Value::Uuids(&self.user_ids),
            Value::Uuids(&self.auth_ids),
            value::texts(self.digests.iter().map(|digest| Some(digest.as_str()))),
            Value::Time(now),
            Value::Time(expires_at),
            metadata.map_or(Value::Null, Value::Datum),
            match own_metadata {
                true => value::jsonbs(self.metadata.iter().copied()),
                false => Value::Null,
            },
            match user_keys {
                true => value::texts(self.user_keys.iter().map(Option::as_deref)),
                false => Value::Null,
            },
        ];
        let written = INSERT_MANY.with(|insert| insert.write(&values, |rows| rows.count()));
        if written as usize != self.ids.len() {
            errors::try_again();
        }
    }
}

/// Records a heartbeat for the session, which resumes it if it has timed out. Returns false where it no longer exists.
fn beat_to_resume(id: Uuid) -> Result<bool, Refused> {
    match session::heartbeat(Key::Id(id), Owner::Any) {
        Answer::Ok => Ok(true),
        Answer::Ended => Err(Refused),
        Answer::Unknown => Ok(false),
    }
}
