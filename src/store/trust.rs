//! Whose code our statements run: that of the tables' owner and of superusers.
//!
//! A trigger runs with the rights of the role that writes, and our statements write as the tables' owner. The privilege
//! TRIGGER, which GRANT ALL includes, would thus be enough to become the owner; so would REFERENCES, as the triggers of a
//! table that a foreign key cascades to run with the rights of the role that deletes. Both are refused when made (see
//! `triggers::ddl`). This module is about those that exist nevertheless: made while the library was not loaded, or
//! harmless until a function or a table got another owner. Our statements do not fire them.
//!
//! Nothing in `pg_trigger` says who made a trigger, and the function that it calls may be a superuser's and do harm all
//! the same, given the right arguments or condition. So a trigger on our tables that its owner or a superuser has made
//! is marked: it depends on the extension, as after ALTER TRIGGER … DEPENDS ON EXTENSION, which needs ownership.

use std::{
    cell::{Cell, RefCell},
    ptr,
};

use pgrx::{pg_guard, pg_sys, pg_sys::Oid};

use super::owner_rights;
use crate::pg::{
    catalog, compat,
    installed::{self, Installed},
};

/// Returns whether a role may do all that the tables' owner may: it is a superuser, the owner, or a member of it.
pub fn is_trusted(role: Oid, installed: &Installed) -> bool {
    // SAFETY: a catalog lookup by OID; superusers have the privileges of every role.
    unsafe { pg_sys::has_privs_of_role(role, installed.owner) }
}

/// What a trigger depends on, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Dependencies {
    /// Whether it depends on the extension, the mark of a trigger made by the owner or a superuser.
    pub is_marked: bool,
    /// Whether all functions, operators and types that it uses belong to trusted roles.
    pub are_trusted: bool,
}

/// Reads the dependencies of a trigger. What PostgreSQL itself has installed has none.
pub fn dependencies_of(trigger: Oid, installed: &Installed) -> Dependencies {
    let mut found = Dependencies {
        is_marked: false,
        are_trusted: true,
    };
    let owned_by_trusted = |owner: Option<Oid>| owner.is_none_or(|owner| is_trusted(owner, installed));
    catalog::for_each_dependency(pg_sys::TriggerRelationId, trigger, |class, object| match class {
        pg_sys::ProcedureRelationId => found.are_trusted &= owned_by_trusted(catalog::function_owner(object)),
        catalog::OPERATOR_RELATION => {
            let (owner, function) = catalog::operator(object).unzip();
            found.are_trusted &=
                owned_by_trusted(owner) && owned_by_trusted(function.and_then(catalog::function_owner));
        }
        pg_sys::TypeRelationId => found.are_trusted &= owned_by_trusted(catalog::type_owner(object)),
        pg_sys::ExtensionRelationId => found.is_marked |= object == installed.extension,
        _ => {}
    });
    found
}

/// Returns whether a trigger is PostgreSQL's own, on the referenced side of a foreign key.
pub fn is_of_foreign_key(is_internal: bool, function: Oid) -> bool {
    // SAFETY: compares with the OIDs of PostgreSQL's trigger functions.
    is_internal && unsafe { pg_sys::RI_FKey_trigger_type(function) } == pg_sys::RI_TRIGGER_PK as i32
}

/// The triggers of a table that our statements must not fire.
struct Untrusted {
    table: Oid,
    /// Other tables that the answer depends on: those that have foreign keys to this one.
    referencing: Vec<Oid>,
    triggers: Vec<Oid>,
}

thread_local! {
    /// The answers found so far. There are as many as tables that our statements write.
    static CACHE: RefCell<Vec<Untrusted>> = const { RefCell::new(Vec::new()) };
    /// Whether an invalidation has arrived that the answers may depend on.
    static IS_STALE: Cell<bool> = const { Cell::new(false) };
    static IS_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// To be called for a statement that the executor has started: makes it fire none of the untrusted triggers, and none
/// later than at its end, if it is one of ours, or one that runs with the owner's rights inside of one of ours, as those
/// of foreign keys do.
///
/// # Safety
/// The executor has started the query, and has not run it.
#[inline(always)]
pub unsafe fn executor_started(query: *mut pg_sys::QueryDesc) {
    if owner_rights::are_in_force() {
        // SAFETY: as the caller promises.
        unsafe { remove_untrusted(query) }
    }
}

#[cold]
#[pg_guard]
unsafe extern "C-unwind" fn remove_untrusted(query: *mut pg_sys::QueryDesc) {
    // SAFETY: a started query has an execution state. Its descriptions of triggers are copies made for it alone, and
    // nothing has read them yet.
    unsafe {
        let statement = &*(*query).plannedstmt;
        if statement.commandType == pg_sys::CmdType::CMD_SELECT && !statement.hasModifyingCTE {
            return;
        }
        let Some(installed) = installed::try_get() else {
            return;
        };
        if !is_trusted(compat::current_role(), &installed) {
            return;
        }
        compat::for_each_result_relation((*query).estate, |relation| {
            let Some(description) = (*relation).ri_TrigDesc.as_mut() else {
                return;
            };
            let table = (*(*relation).ri_RelationDesc).rd_id;
            let untrusted = untrusted_triggers(table, description, &installed);
            let mut kept = 0;
            for position in 0..description.numtriggers as usize {
                let mut trigger = *description.triggers.add(position);
                if !untrusted.contains(&trigger.tgoid) {
                    // PostgreSQL refuses to defer a trigger in a security-restricted operation, such as our statements.
                    trigger.tgdeferrable = false;
                    trigger.tginitdeferred = false;
                    *description.triggers.add(kept) = trigger;
                    kept += 1;
                }
            }
            description.numtriggers = kept as i32;
            if kept == 0 {
                (*relation).ri_TrigDesc = ptr::null_mut();
            }
        });
    }
}

/// Returns the untrusted triggers of a table.
fn untrusted_triggers(table: Oid, description: &pg_sys::TriggerDesc, installed: &Installed) -> Vec<Oid> {
    register();
    if IS_STALE.replace(false) {
        CACHE.with_borrow_mut(Vec::clear);
    }
    let cached = CACHE.with_borrow(|cache| {
        let cached = cache.iter().find(|cached| cached.table == table)?;
        Some(cached.triggers.clone())
    });
    cached.unwrap_or_else(|| {
        let found = find_untrusted(table, description, installed);
        let triggers = found.triggers.clone();
        if !IS_STALE.get() {
            CACHE.with_borrow_mut(|cache| cache.push(found));
        }
        triggers
    })
}

fn find_untrusted(table: Oid, description: &pg_sys::TriggerDesc, installed: &Installed) -> Untrusted {
    let mut found = Untrusted {
        table,
        referencing: Vec::new(),
        triggers: Vec::new(),
    };
    let is_ours = installed.tables().contains(&table);
    for position in 0..description.numtriggers as usize {
        // SAFETY: there are `numtriggers` triggers.
        let trigger = unsafe { &*description.triggers.add(position) };
        let is_untrusted = if is_of_foreign_key(trigger.tgisinternal, trigger.tgfoid) {
            found.referencing.push(trigger.tgconstrrelid);
            let owner = catalog::relation_owner(trigger.tgconstrrelid);
            owner.is_some_and(|owner| !is_trusted(owner, installed))
        } else if trigger.tgisinternal {
            false
        } else {
            let dependencies = dependencies_of(trigger.tgoid, installed);
            !dependencies.are_trusted || is_ours && !dependencies.is_marked
        };
        if is_untrusted {
            found.triggers.push(trigger.tgoid);
        }
    }
    found
}

/// Registers for invalidations, once per backend: PostgreSQL cannot unregister a callback.
fn register() {
    use pg_sys::SysCacheIdentifier::{AUTHMEMMEMROLE, AUTHOID, OPEROID, PROCOID};
    if IS_REGISTERED.replace(true) {
        return;
    }
    // SAFETY: the callbacks only write to cells and never raise.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation), pg_sys::Datum::from(0));
        for cache in [AUTHOID, AUTHMEMMEMROLE, OPEROID, PROCOID] {
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(on_object), pg_sys::Datum::from(0));
        }
    }
}

unsafe extern "C-unwind" fn on_relation(_arg: pg_sys::Datum, relation: Oid) {
    let matters = CACHE.with(|cache| {
        cache.try_borrow().map_or(true, |cache| {
            cache
                .iter()
                .any(|cached| cached.table == relation || cached.referencing.contains(&relation))
        })
    });
    // The owner of our tables, and thus who is trusted, comes with an invalidation of one of them.
    if relation == pg_sys::InvalidOid || matters || installed::is_uncached() {
        IS_STALE.set(true);
    }
}

unsafe extern "C-unwind" fn on_object(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    IS_STALE.set(true);
}
