//! Hides users, and shows them again; and what a user is, whether it is hidden or not.

use pgrx::{datum::Interval, pg_extern, pg_sys};
use uuid::Uuid;

use super::{
    args::to_uuid,
    caller,
    declared::expiry,
    presence_reader::{LiveSessions, PresenceReader},
    result::{Composite, ToRow},
    status_label::label_oid,
};
use crate::{
    identity,
    pg::{compat, errors, text::EncodedText},
    rules::{declared::shown, hiding::Visible, status::Status, time::Micros},
    settings,
    store::{statement::Statement, value::Value},
};

thread_local! {
    // The trigger adds what was seen of the user last. Who is hidden already is, until that expires instead.
    static HIDE: Statement = const { Statement::new(
        |s| format!(
            "INSERT INTO {s}.declared_statuses AS d (user_id, source, status, set_at, expires_at, by_user) \
             VALUES ($1, 'visibility', 'invisible', $2, $3, $4) \
             ON CONFLICT (user_id, source) DO UPDATE \
             SET status = excluded.status, by_user = excluded.by_user, \
                 expires_at = CASE WHEN {HIDES} AND d.by_user AND NOT $4 \
                     AND (d.expires_at IS NULL OR d.expires_at > excluded.expires_at) \
                     THEN d.expires_at ELSE excluded.expires_at END, \
                 set_at = CASE WHEN {HIDES} THEN d.set_at ELSE excluded.set_at END, \
                 last_seen = CASE WHEN {HIDES} THEN d.last_seen END, shown_at = NULL \
             WHERE NOT ({HIDES}) OR d.by_user OR NOT $4",
            HIDES = "d.shown_at IS NULL AND (d.expires_at IS NULL OR d.expires_at > $2)"
        ),
        &[pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::BOOLOID],
    ) };
    // The row stays: what its user did meanwhile is never shown. It has expired, too, so that it does not hide its user again
    // where it has only waited for presence.allow_invisible.
    static SHOW: Statement = const { Statement::new(
        |s| format!(
            "UPDATE {s}.declared_statuses SET shown_at = coalesce(shown_at, $2), expires_at = coalesce(shown_at, $2) \
             WHERE user_id = $1 AND source = 'visibility' AND (shown_at IS NULL OR by_user) \
                 AND (expires_at IS NULL OR expires_at > $2) AND (by_user OR NOT $3)"
        ),
        &[pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::BOOLOID],
    ) };
}

/// Hides a user, who then shows as if all sessions had ended, or shows one again, at commit. A user who is hidden stays so
/// until `expires_in` from now, or until shown again.
///
/// Errors: 22023 where `invisible` is NULL, an interval is not positive, exceeds ten years, or is given to show a user again,
/// or a service names no user; 42501 where a client names another user, has no identity, is not allowed to hide itself, or
/// shows itself again where a service has hidden it; 25006 on a standby; 55000 where the library is not preloaded.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.set_invisible(
    invisible pg_catalog.bool,
    expires_in pg_catalog.interval DEFAULT NULL,
    user_id pg_catalog.uuid DEFAULT NULL
) RETURNS pg_catalog.void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn set_invisible(invisible: Option<bool>, expires_in: Option<Interval>, user_id: Option<pgrx::Uuid>) {
    caller::require_writable();
    let user_id = caller::subject(user_id.map(to_uuid));
    let by_user = !identity::is_service();
    if by_user && !settings::allow_invisible() {
        errors::invisible_not_allowed();
    }
    let now = compat::now();
    match invisible {
        Some(true) => {
            let expires_at = expires_in.map(|interval| expiry(now, interval));
            let values = [
                Value::Uuid(&user_id),
                Value::Time(now),
                expires_at.map_or(Value::Null, Value::Time),
                Value::Bool(by_user),
            ];
            HIDE.with(|hide| hide.write(&values, |_| ()));
        }
        Some(false) if expires_in.is_none() => {
            let values = [Value::Uuid(&user_id), Value::Time(now), Value::Bool(by_user)];
            let is_changed = SHOW.with(|show| show.write(&values, |rows| rows.count() > 0));
            if by_user && !is_changed && is_hidden(&PresenceReader::begin(), user_id) {
                errors::hidden_by_service();
            }
        }
        Some(false) => errors::bad_value(
            "expires_in must not be specified to show a user again",
            "",
            "Omit expires_in.",
        ),
        None => errors::bad_value(
            "invisible must not be null",
            "",
            "Pass true to hide the user, or false to show the user again.",
        ),
    }
}

/// Returns what a user is, whether it is hidden or not, and what others are shown. Errors: 22023 where a service names no
/// user; 42501 where a client names another user, or has no identity; 55000 where the library is not preloaded.
#[pg_extern(
    requires = ["types"],
    sql = r#"
CREATE FUNCTION @extschema@.own_presence(user_id pg_catalog.uuid DEFAULT NULL) RETURNS @extschema@.presence_own
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
fn own_presence(user_id: Option<pgrx::Uuid>) -> Composite<OwnPresence> {
    caller::require_preload();
    let user_id = caller::subject(user_id.map(to_uuid));
    let reader = PresenceReader::begin();
    let [user] = &mut reader.shown_of(&[user_id])[..] else {
        errors::damaged_install();
    };
    let own = reader.live(user_id);
    let by_sessions = own.as_ref().map_or(Status::Inactive, LiveSessions::status);
    let declared = reader.declared_of(&[user_id]).remove(&user_id).unwrap_or_default();
    let truth = shown(by_sessions, declared);
    Composite(OwnPresence {
        status: truth.status,
        shown: user.shown.status,
        is_invisible: is_hidden(&reader, user_id),
        status_text: truth.text,
        emoji: truth.emoji,
        status_expires_at: truth.expires_at,
        idle_since: own.as_ref().and_then(|own| own.idle_since),
        sessions: own.map_or(0, |own| own.sessions),
    })
}

fn is_hidden(reader: &PresenceReader, user_id: Uuid) -> bool {
    let visible = reader.visible(Some(&[user_id]));
    visible.get(&user_id).is_some_and(Visible::is_hidden)
}

/// What a user is, and what others are shown.
struct OwnPresence {
    status: Status,
    shown: Status,
    is_invisible: bool,
    status_text: Option<EncodedText>,
    emoji: Option<EncodedText>,
    status_expires_at: Option<Micros>,
    idle_since: Option<Micros>,
    sessions: u32,
}

impl ToRow for OwnPresence {
    fn with_row<R>(&self, take: impl FnOnce(&[Value]) -> R) -> R {
        let time = |at: Option<Micros>| at.map_or(Value::Null, Value::Time);
        take(&[
            Value::Oid(label_oid(self.status)),
            Value::Oid(label_oid(self.shown)),
            Value::Bool(self.is_invisible),
            self.status_text.as_ref().into(),
            self.emoji.as_ref().into(),
            time(self.status_expires_at),
            time(self.idle_since),
            Value::Int(self.sessions as i32),
        ])
    }
}
