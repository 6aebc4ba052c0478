//! Declares statuses, and takes them back.

use pgrx::{datum::Interval, pg_extern, pg_sys};
use uuid::Uuid;

use super::{
    args::to_uuid,
    caller,
    result::{Composite, ToRow},
    start,
};
use crate::{
    identity,
    pg::{compat, errors, text::EncodedText, text::Text},
    rules::{
        declared::{MANUAL, TEXT, Word},
        hiding::VISIBILITY,
        time::Micros,
    },
    store::{lock_wait, rows::Row, statement::Statement, value::Value},
    triggers::declared_siblings,
};

thread_local! {
    // The trigger checks the values, where it fires.
    static SET: Statement = const { Statement::new(
        |s| format!(
            "INSERT INTO {s}.declared_statuses AS d \
                 (user_id, source, status, status_text, emoji, set_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (user_id, source) DO UPDATE \
             SET status = excluded.status, status_text = excluded.status_text, emoji = excluded.emoji, \
                 expires_at = excluded.expires_at, \
                 set_at = CASE WHEN (d.status, d.status_text, d.emoji) \
                         IS NOT DISTINCT FROM (excluded.status, excluded.status_text, excluded.emoji) \
                     AND (d.expires_at IS NULL OR d.expires_at > $8) THEN d.set_at ELSE excluded.set_at END \
             RETURNING user_id, source, status, status_text, emoji, set_at, expires_at"
        ),
        &[
            pg_sys::UUIDOID, pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::TEXTOID,
            pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID,
        ],
    ) };
    static CLEAR: Statement = const { Statement::new(
        |s| format!("DELETE FROM {s}.declared_statuses WHERE user_id = $1 AND source = $2 RETURNING expires_at"),
        &[pg_sys::UUIDOID, pg_sys::TEXTOID],
    ) };
}

/// Declares a status, a text and an emoji of a user, in place of what the same source has declared. Returns the row as it
/// is stored. It takes effect at commit.
///
/// Errors: 22023 where a value is invalid, all are NULL, or a service names no user; 42501 where a client names another
/// user, or another source than its own two, or has no identity; 53400 where there are as many sources as there may be;
/// 25006 on a standby; 55000 where the library is not preloaded.
#[pg_extern(
    requires = ["types"],
    sql = r#"
CREATE FUNCTION @extschema@.set_status(
    status pg_catalog.text DEFAULT NULL,
    status_text pg_catalog.text DEFAULT NULL,
    emoji pg_catalog.text DEFAULT NULL,
    expires_in pg_catalog.interval DEFAULT NULL,
    source pg_catalog.text DEFAULT 'manual',
    user_id pg_catalog.uuid DEFAULT NULL
) RETURNS @extschema@.presence_declared_status
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
fn set_status(
    status: Option<Text>,
    status_text: Option<Text>,
    emoji: Option<Text>,
    expires_in: Option<Interval>,
    source: Option<Text>,
    user_id: Option<pgrx::Uuid>,
) -> Composite<StoredStatus> {
    caller::require_writable();
    let source = source.as_deref().unwrap_or(MANUAL);
    let user_id = subject(user_id.map(to_uuid), source);
    if source == VISIBILITY {
        errors::bad_visibility();
    }
    let status = status.map(|status| match Word::parse(status.as_bytes()) {
        Some(word) => word.as_str(),
        None => errors::unknown_status(),
    });
    let now = compat::now();
    let expires_at = expires_in.map(|interval| expiry(now, interval));
    let source_text = EncodedText::encode(source);
    let set_at = lock_wait::bounded(|| declared_siblings::time_of_setting(user_id, source_text.as_bytes(), now));
    let values = [
        Value::Uuid(&user_id),
        Value::EncodedText(&source_text),
        status.into(),
        status_text.as_deref().into(),
        emoji.as_deref().into(),
        Value::Time(set_at),
        expires_at.map_or(Value::Null, Value::Time),
        Value::Time(now),
    ];
    let stored = SET.with(|set| set.write(&values, |rows| rows.first().as_ref().and_then(StoredStatus::read)));
    // A rule or trigger of the owner's may leave it out.
    Composite(stored.unwrap_or_else(|| errors::damaged_install()))
}

/// Takes back what a source has declared of a user, at commit. Returns whether it was still valid. Errors: 22023 where a
/// service names no user; 42501 where a client names another user, or another source than its own two, or has no identity;
/// 25006 on a standby; 55000 where the library is not preloaded.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.clear_status(
    source pg_catalog.text DEFAULT 'manual',
    user_id pg_catalog.uuid DEFAULT NULL
) RETURNS pg_catalog.bool
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn clear_status(source: Option<Text>, user_id: Option<pgrx::Uuid>) -> bool {
    caller::require_writable();
    let source = source.as_deref().unwrap_or(MANUAL);
    let user_id = subject(user_id.map(to_uuid), source);
    if source == VISIBILITY {
        errors::bad_visibility();
    }
    let now = compat::now();
    CLEAR.with(|clear| {
        clear.write(&[Value::Uuid(&user_id), Value::Text(source)], |rows| {
            rows.first()
                .is_some_and(|row| row.time(1).is_none_or(|expires_at| now < expires_at))
        })
    })
}

/// Returns the user of whom the caller declares something. Errors: 22023 where a service names no user; 42501 where a client
/// has no identity, names another user, or a source that is not its own.
fn subject(user_id: Option<Uuid>, source: &str) -> Uuid {
    let subject = caller::subject(user_id);
    if !identity::is_service() && ![MANUAL, TEXT].contains(&source) {
        errors::foreign_source();
    }
    subject
}

/// Returns when something expires that is declared now. Errors: 22023 where the interval is not positive or exceeds ten
/// years.
pub fn expiry(now: Micros, interval: Interval) -> Micros {
    start::later(now, interval).unwrap_or_else(|| {
        errors::bad_value(
            "expires_in must be a positive interval of at most ten years",
            "",
            "Omit expires_in for a status that is valid until it is cleared.",
        )
    })
}

/// A row as it is stored.
struct StoredStatus {
    user_id: Uuid,
    source: EncodedText,
    status: Option<EncodedText>,
    status_text: Option<EncodedText>,
    emoji: Option<EncodedText>,
    set_at: Micros,
    expires_at: Option<Micros>,
}

impl StoredStatus {
    fn read(row: &Row) -> Option<StoredStatus> {
        Some(StoredStatus {
            user_id: row.uuid(1)?,
            source: row.encoded_text(2)?,
            status: row.encoded_text(3),
            status_text: row.encoded_text(4),
            emoji: row.encoded_text(5),
            set_at: row.time(6)?,
            expires_at: row.time(7),
        })
    }
}

impl ToRow for StoredStatus {
    fn with_row<R>(&self, take: impl FnOnce(&[Value]) -> R) -> R {
        take(&[
            Value::Uuid(&self.user_id),
            Value::EncodedText(&self.source),
            self.status.as_ref().into(),
            self.status_text.as_ref().into(),
            self.emoji.as_ref().into(),
            Value::Time(self.set_at),
            self.expires_at.map_or(Value::Null, Value::Time),
        ])
    }
}
