//! Who is calling: a service, a client with an identity, or neither.
//!
//! A client's identity is read anew for each call, as a gateway changes it between two statements of one connection.
//! What a role may do is kept until the catalogs change; see [`role_cache`].

mod call_right;
mod callable;
mod reader;
mod role_cache;
mod service;
mod user_id_function;

use std::{borrow::Cow, ffi::CStr};

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    pg::{memory, text},
    roster::Owner,
    rules::{claims, presence_id::presence_id_text},
    settings::{self, ClaimFormat},
};

pub use call_right::{may_call, remember_call_right};
pub use callable::Callable;
pub use reader::is_reader;
pub use service::is_service;

/// Returns the identity of the caller, if it has a valid one: the claim or, where the request has no claims,
/// `presence.user_id`.
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

/// Returns the user the caller acts for, if it has a valid identity: what `presence.user_id_function` returns for
/// [`auth_id`] or, where the setting is empty, `auth_id` itself. Errors: 55000 where the function cannot be called,
/// 42501 where the caller may not execute it, and whatever it raises.
pub fn user_id() -> Option<Uuid> {
    let auth_id = auth_id()?;
    match settings::user_id_function() {
        Some(function) => user_id_function::user_of(&function, auth_id),
        None => Some(auth_id),
    }
}

/// Returns the application's own id of the caller's user: the claim itself, where it is read as text and no function
/// maps it.
pub fn user_key() -> Option<String> {
    if settings::claim_format() != ClaimFormat::Text || settings::user_id_function().is_some() {
        return None;
    }
    text_claim(request_claims()?).map(|key| memory::copy_text(&key))
}

/// Returns whose sessions the caller may read and change. Errors: 55000 where the extension is not installed.
#[inline(always)]
pub fn owner() -> Owner {
    if is_service() {
        return Owner::Any;
    }
    auth_id().map_or(Owner::Nobody, Owner::Auth)
}

/// Returns the owner of a session that a service starts: the caller's identity if it maps to that user, else the user.
/// Errors as [`user_id`].
pub fn auth_id_for(user: Uuid) -> Uuid {
    auth_id().filter(|_| user_id() == Some(user)).unwrap_or(user)
}

/// Returns the claim as text, unless it is empty.
fn text_claim(json: &[u8]) -> Option<Cow<'_, str>> {
    claims::claim_text(json, &settings::claim()).filter(|key| !key.is_empty())
}

/// Returns the claims that PostgREST, Supabase and others set for the transaction, in UTF-8; empty where they cannot be
/// converted, `None` where there are none.
///
/// The bytes are PostgreSQL's own copy of the setting, so they are valid until something sets it.
#[inline]
fn request_claims<'a>() -> Option<&'a [u8]> {
    // SAFETY: a missing setting yields null, any other one a C string that is valid until the setting changes; no
    // caller above runs SQL while it holds the bytes.
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
