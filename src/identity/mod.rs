//! Who is calling, as the security model sees it: a service, a client with an identity, or nobody known.
//!
//! Nothing of a client's identity outlives the call: a gateway changes it between two statements of one connection.
//! Whether a role is a service is remembered until the catalogs change.

mod mapped;
mod reader;
mod right;
mod service;
mod sql;

use std::borrow::Cow;
use std::ffi::CStr;

use pgrx::pg_sys;
use uuid::Uuid;

use crate::core::claims;
use crate::core::key::presence_id_text;
use crate::roster::Owner;
use crate::settings::{self, ClaimFormat};
use crate::text;

pub use reader::is_reader;
pub use right::{learn, may_call};
pub use service::is_service;

/// The identity of the caller, if it has a valid one: the claim, or where there are no claims `presence.user_id`.
#[inline]
pub fn auth_id() -> Option<Uuid> {
    match request_claims() {
        Some(json) => match settings::claim_format() {
            ClaimFormat::Uuid => claims::parse_uuid(&claims::claim(json, &settings::claim())?),
            ClaimFormat::Text => text_claim(json).map(|key| presence_id_text(&key)),
        },
        None => settings::user_id(),
    }
}

/// The user the caller acts for, if it has a valid identity: what `presence.user_id_function` makes of
/// [`auth_id`], or where there is none the same. Errors: what that function raises; 55000 where it cannot be called.
pub fn user_id() -> Option<Uuid> {
    let auth_id = auth_id()?;
    match settings::user_id_function() {
        Some(function) => mapped::user_of(&function, auth_id),
        None => Some(auth_id),
    }
}

/// The application's own id of the caller's user: the claim itself, where it is read as text and no function maps it.
pub fn user_key() -> Option<String> {
    if settings::claim_format() != ClaimFormat::Text || settings::user_id_function().is_some() {
        return None;
    }
    text_claim(request_claims()?).map(Cow::into_owned)
}

/// Whose sessions the caller may touch.
#[inline(always)]
pub fn owner() -> Owner {
    if is_service() {
        return Owner::Any;
    }
    auth_id().map_or(Owner::Nobody, Owner::Auth)
}

/// Whose a session is that a service starts: the caller's, where a service acts on behalf of a client who is that user.
pub fn auth_id_for(user: Uuid) -> Uuid {
    auth_id()
        .filter(|_| user_id() == Some(user))
        .unwrap_or(user)
}

/// A claim read as text. An empty one names nobody.
fn text_claim(json: &[u8]) -> Option<Cow<'_, str>> {
    claims::claim_text(json, &settings::claim()).filter(|key| !key.is_empty())
}

/// The claims that PostgREST, Supabase and others leave for the transaction, unless there are none; as UTF-8, and empty
/// where they cannot be that.
///
/// The bytes are PostgreSQL's own copy of the setting, so they are good until something sets it.
#[inline]
fn request_claims<'a>() -> Option<&'a [u8]> {
    // SAFETY: a missing setting yields null, any other one a C string that stays until the setting changes; no caller
    // above runs SQL while it holds the bytes.
    unsafe {
        let value = pg_sys::GetConfigOption(c"request.jwt.claims".as_ptr(), true, false);
        if value.is_null() || *value == 0 {
            return None;
        }
        let claims = CStr::from_ptr(value).to_bytes();
        if text::is_utf8() {
            return Some(claims);
        }
        Some(text::try_decode(claims).unwrap_or_default().as_bytes())
    }
}
