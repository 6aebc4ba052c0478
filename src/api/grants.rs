//! Makes a role a holder, client, reader or service.

use std::ffi::CStr;

use pgrx::{pg_extern, pg_sys};

use super::caller;
use crate::{
    pg::{catalog, errors, installed},
    store::owner_rights,
};

/// Calls a function of the install that grants privileges to a role, with the rights of that function's owner. EXECUTE
/// alone, as GRANT ... ON ALL ROUTINES gives it, is not enough. Errors: 42501 where the caller is neither the owner of
/// the extension's tables nor of the database, 22023 where there is no role.
fn grant(name: &CStr, role: Option<pg_sys::Oid>) {
    let installed = caller::require_owner();
    let Some(role) = role else {
        errors::bad_value(
            "role must not be null",
            "",
            "Pass the name of a role, for example: SELECT grant_client('authenticated');",
        );
    };
    let Some(function) = installed::function(name, &[pg_sys::REGROLEOID], installed.schema) else {
        errors::damaged_install();
    };
    let Some(owner) = catalog::function_owner(function) else {
        errors::damaged_install();
    };
    owner_rights::as_role(owner, || {
        // SAFETY: a function of one argument, as looked up, that is not null; its result is void.
        unsafe { pg_sys::OidFunctionCall1Coll(function, pg_sys::InvalidOid, pg_sys::Datum::from(role)) };
    });
}

/// Lets a role use the functions by token. Errors as `grant`.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.grant_holder(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn grant_holder(role: Option<pg_sys::Oid>) {
    grant(c"_grant_holder", role);
}

/// Lets a role act for its own identity. Errors as `grant`.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.grant_client(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn grant_client(role: Option<pg_sys::Oid>) {
    grant(c"_grant_client", role);
}

/// Lets a role read everybody's status. Errors as `grant`.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.grant_reader(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn grant_reader(role: Option<pg_sys::Oid>) {
    grant(c"_grant_reader", role);
}

/// Lets a role act for everybody. Errors as `grant`.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.grant_service(role pg_catalog.regrole) RETURNS pg_catalog.void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn grant_service(role: Option<pg_sys::Oid>) {
    grant(c"_grant_service", role);
}
