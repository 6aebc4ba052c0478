//! What a call checks first: the server, the caller's rights, and the user it acts for.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    identity,
    pg::{
        catalog, compat, errors,
        installed::{self, Installed},
        memory,
    },
    roster,
    rules::presence_id::presence_id_text,
    settings,
    store::trust,
};

/// Checks that a write can work here. Errors: 55000 where the library is not preloaded, 25006 on a standby.
pub fn require_writable() {
    require_preload();
    if compat::in_recovery() {
        errors::on_standby();
    }
}

/// Checks that the library is preloaded. Errors: 55000 where it is not.
pub fn require_preload() {
    if !settings::is_preloaded() {
        errors::not_preloaded();
    }
}

/// Checks that the caller is a service. Errors: 42501 where it is not.
pub fn require_service() {
    if !identity::is_service() {
        errors::service_only();
    }
}

/// Checks that the caller is a service or a member of pg_monitor: EXECUTE alone, as GRANT ... ON ALL ROUTINES gives it,
/// is not enough. Errors: 42501 where it is not.
pub fn require_monitor() {
    // SAFETY: a catalog lookup by OID.
    let is_monitor =
        unsafe { pg_sys::has_privs_of_role(compat::current_role(), pg_sys::Oid::from(pg_sys::ROLE_PG_MONITOR)) };
    if !is_monitor {
        require_service();
    }
}

/// Checks that the caller is the owner of the extension's tables or of the database, or a superuser: EXECUTE alone is
/// not enough. Errors: 42501 where it is none, 55000 where the extension is not installed.
pub fn require_owner() -> Installed {
    let (installed, role) = (installed::get(), compat::current_role());
    // SAFETY: a catalog lookup by OID.
    let is_member = |owner: pg_sys::Oid| unsafe { pg_sys::has_privs_of_role(role, owner) };
    if !trust::is_trusted(role, &installed) && !catalog::database_owner().is_some_and(is_member) {
        errors::owner_only();
    }
    installed
}

/// Returns the `auth_id` of the sessions that the caller may change, as a parameter of statements: `Some(None)` for a
/// service, which may change any; `None` for a client without an identity, which may change none.
pub fn owner_filter() -> Option<Option<Uuid>> {
    match identity::owner() {
        roster::Owner::Any => Some(None),
        roster::Owner::Auth(id) => Some(Some(id)),
        roster::Owner::Nobody => None,
    }
}

/// Returns the user of whom the caller speaks: a client of itself. Errors: 22023 where a service names no user; 42501 where a
/// client names another user, or has no identity.
pub fn subject(user_id: Option<Uuid>) -> Uuid {
    if identity::is_service() {
        return user_id.unwrap_or_else(|| {
            errors::bad_value(
                "user_id must be specified",
                "A service may act for any user, so it must name the user.",
                "Pass the user's id, or presence_id(key) where that is not a uuid.",
            )
        });
    }
    let Some(own) = identity::user_id() else {
        errors::no_identity();
    };
    if user_id.is_some_and(|id| id != own) {
        errors::not_permitted();
    }
    own
}

/// The user that a session is for.
pub struct Subject {
    pub user_id: Uuid,
    pub user_key: Option<String>,
    pub auth_id: Uuid,
    /// The caller is a service, so the limits on clients do not apply.
    pub by_service: bool,
}

impl Subject {
    /// Returns the subject that a caller's arguments name. Errors: 22023 where a service names no user, or two
    /// different ones; 42501 where a client names another user, or has no identity.
    pub fn of(user_id: Option<Uuid>, user_key: Option<&str>, auth_id: Option<Uuid>) -> Subject {
        if identity::is_service() {
            Subject::for_service(user_id, user_key, auth_id)
        } else {
            Subject::for_client(user_id, user_key, auth_id)
        }
    }

    fn for_service(user_id: Option<Uuid>, user_key: Option<&str>, auth_id: Option<Uuid>) -> Subject {
        let id_of_key = user_key.map(presence_id_text);
        let user_id = match (user_id, id_of_key) {
            (Some(id), Some(id_of_key)) if id != id_of_key => errors::bad_value(
                "user_id and user_key name different users",
                "The id of a user with a key is presence_id(user_key).",
                "Pass only one of them.",
            ),
            (Some(id), _) | (None, Some(id)) => id,
            (None, None) => errors::bad_value(
                "user_id or user_key must be specified",
                "A service acts for any user, so it must name the user of the session.",
                "Pass user_id, or user_key where the application's ids are not uuids.",
            ),
        };
        Subject {
            user_id,
            user_key: user_key.map(memory::copy_text),
            auth_id: auth_id.unwrap_or_else(|| identity::auth_id_for(user_id)),
            by_service: true,
        }
    }

    fn for_client(user_id: Option<Uuid>, user_key: Option<&str>, auth_id: Option<Uuid>) -> Subject {
        let (Some(own_auth), Some(own_user)) = (identity::auth_id(), identity::user_id()) else {
            errors::no_identity();
        };
        let foreign = |id: Option<Uuid>, own| id.is_some_and(|id| id != own);
        if foreign(user_id, own_user) || foreign(user_key.map(presence_id_text), own_user) || foreign(auth_id, own_auth)
        {
            errors::not_permitted();
        }
        Subject {
            user_id: own_user,
            user_key: identity::user_key().or_else(|| user_key.map(memory::copy_text)),
            auth_id: own_auth,
            by_service: false,
        }
    }
}
