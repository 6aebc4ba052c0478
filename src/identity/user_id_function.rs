//! `presence.user_id_function`: maps the identity that a gateway vouches for to the application's own user id.

use std::ffi::CStr;

use pgrx::pg_sys;
use uuid::Uuid;

use crate::pg::{compat, errors};

/// Returns the user that the function returns for an identity; `None` for NULL. It runs with the rights of the caller.
///
/// Errors: 55000 where the name is not schema-qualified or there is no such function from uuid to uuid, 42501 where the
/// caller may not execute it, and whatever the function raises.
pub fn user_of(name: &CStr, auth_id: Uuid) -> Option<Uuid> {
    call(resolve(name), auth_id)
}

/// Finds the function by its qualified name. A name without a schema is refused: it would be looked up in the search
/// path of the caller, who could put another function there.
fn resolve(name: &CStr) -> pg_sys::Oid {
    const UUID: pg_sys::Oid = pg_sys::UUIDOID;
    // SAFETY: the parser copies the name into a list that lives in the current memory context; the rest are catalog
    // look-ups by that list and by OID.
    unsafe {
        let names = compat::qualified_name(name);
        if (*names).length < 2 {
            errors::bad_user_id_function("presence.user_id_function must be schema-qualified");
        }
        let function = pg_sys::LookupFuncName(names, 1, &UUID, true);
        if function == pg_sys::InvalidOid
            || pg_sys::get_func_rettype(function) != UUID
            || pg_sys::get_func_retset(function)
        {
            errors::bad_user_id_function("presence.user_id_function is not a function from uuid to uuid");
        }
        if !compat::may_execute(compat::current_role(), function) {
            pg_sys::aclcheck_error(
                pg_sys::AclResult::ACLCHECK_NO_PRIV,
                pg_sys::ObjectType::OBJECT_FUNCTION,
                pg_sys::get_func_name(function),
            );
        }
        function
    }
}

fn call(function: pg_sys::Oid, auth_id: Uuid) -> Option<Uuid> {
    const ARGUMENTS: usize = 1;
    const SIZE: usize = size_of::<pg_sys::FunctionCallInfoBaseData>() + ARGUMENTS * size_of::<pg_sys::NullableDatum>();
    // SAFETY: the call frame has room for the one argument, a uuid passed by reference to 16 bytes that outlive the
    // call. resolve() has checked that the function takes it and returns a uuid or NULL, which is copied at once. An
    // error that the function raises becomes a panic at the boundary, as in pgrx's own calls.
    unsafe {
        let mut info = pg_sys::FmgrInfo::default();
        pg_sys::fmgr_info(function, &mut info);
        let frame = pg_sys::palloc0(SIZE).cast::<pg_sys::FunctionCallInfoBaseData>();
        (*frame).flinfo = &mut info;
        (*frame).nargs = ARGUMENTS as i16;
        let argument = &mut (*frame).args.as_mut_slice(ARGUMENTS)[0];
        argument.value = pg_sys::Datum::from(auth_id.as_bytes().as_ptr());
        let body = info.fn_addr?;
        let result = pg_sys::ffi::pg_guard_ffi_boundary(|| body(frame));
        let has_value = !(*frame).isnull;
        pg_sys::pfree(frame.cast());
        has_value.then(|| Uuid::from_bytes(*result.cast_mut_ptr::<[u8; 16]>()))
    }
}
