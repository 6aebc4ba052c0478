//! What a call needs before it does anything, and whom it acts for.

use uuid::Uuid;

use crate::{
    identity,
    pg::{compat, errors},
    roster,
    rules::presence_id::presence_id_text,
    settings,
};

/// Refuses what cannot work: 55000 where the library is not preloaded, 25006 on a standby.
pub fn require_writable() {
    require_preload();
    if compat::in_recovery() {
        errors::on_standby();
    }
}

/// Refuses calls where the library was not loaded with the server, with 55000.
pub fn require_preload() {
    if !settings::is_preloaded() {
        errors::not_preloaded();
    }
}

/// Refuses everybody but services, with 42501.
pub fn require_service() {
    if !identity::is_service() {
        errors::service_only();
    }
}

/// Whose sessions the caller may end, as a filter of statements: none for a service, which may end any.
///
/// The outer `None` is a client without an identity: no session is its own.
pub fn owner_filter() -> Option<Option<Uuid>> {
    match identity::owner() {
        roster::Owner::Any => Some(None),
        roster::Owner::Auth(id) => Some(Some(id)),
        roster::Owner::Nobody => None,
    }
}

/// Whom a session is for.
pub struct Subject {
    pub user_id: Uuid,
    pub user_key: Option<String>,
    pub auth_id: Uuid,
    /// A service asks, so that a client's limits do not apply.
    pub by_service: bool,
}

impl Subject {
    /// Takes the ids a caller gave. A service must name a user (22023); a client may name itself only (42501), and needs
    /// an identity (42501).
    pub fn of(user_id: Option<Uuid>, user_key: Option<&str>, auth_id: Option<Uuid>) -> Subject {
        if identity::is_service() {
            Subject::for_service(user_id, user_key, auth_id)
        } else {
            Subject::for_client(user_id, user_key, auth_id)
        }
    }

    fn for_service(user_id: Option<Uuid>, user_key: Option<&str>, auth_id: Option<Uuid>) -> Subject {
        let named = user_key.map(presence_id_text);
        let user_id = match (user_id, named) {
            (Some(id), Some(named)) if id != named => errors::bad_value(
                "user_id and user_key name different users",
                "Where a user has a key, the id is presence_id(user_key).",
                "Pass one of the two.",
            ),
            (Some(id), _) | (None, Some(id)) => id,
            (None, None) => errors::bad_value(
                "a user is needed",
                "A service acts for any user, so it has to say for whom.",
                "Pass user_id, or user_key where the application's ids are no uuids.",
            ),
        };
        Subject {
            user_id,
            user_key: user_key.map(str::to_owned),
            auth_id: auth_id.unwrap_or_else(|| identity::auth_id_for(user_id)),
            by_service: true,
        }
    }

    fn for_client(user_id: Option<Uuid>, user_key: Option<&str>, auth_id: Option<Uuid>) -> Subject {
        let (Some(own_auth), Some(own_user)) = (identity::auth_id(), identity::user_id()) else {
            errors::no_identity();
        };
        let foreign = |given: Option<Uuid>, own| given.is_some_and(|given| given != own);
        if foreign(user_id, own_user) || foreign(user_key.map(presence_id_text), own_user) || foreign(auth_id, own_auth)
        {
            errors::not_permitted();
        }
        Subject {
            user_id: own_user,
            user_key: identity::user_key().or(user_key.map(str::to_owned)),
            auth_id: own_auth,
            by_service: false,
        }
    }
}
