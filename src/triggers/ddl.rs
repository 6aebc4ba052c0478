//! Refuses triggers on our tables, and foreign keys to them, that would let others' code run with the rights of the
//! tables' owner; see [`trust`].
//!
//! PostgreSQL first makes them, under the locks that they need, and is then undone by the error: so nobody can exchange
//! what a name refers to between the check and the command. Beforehand, what is not permitted anyway is refused without
//! a lock, for which PostgreSQL would first wait, and keep others waiting.
//!
//! `process_utility` runs for every utility statement of the server. An error of PostgreSQL jumps over its frame, so
//! nothing in it may need to be dropped, and it must not panic.

use std::{
    cell::Cell,
    ffi::{c_char, c_int},
};

use pgrx::{pg_guard, pg_sys};

use crate::{
    pg::{
        catalog, compat, errors,
        installed::{self, Installed},
        process_local::ProcessLocal,
    },
    store::trust,
};

/// The hook that was installed before ours.
static PREVIOUS_HOOK: ProcessLocal<Cell<pg_sys::ProcessUtility_hook_type>> = ProcessLocal::new(Cell::new(None));

/// Installs the hook. Call once, from `_PG_init`.
pub fn init() {
    // SAFETY: the server is starting, with one thread, so nothing runs the hook meanwhile.
    unsafe {
        PREVIOUS_HOOK.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    is_read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the arguments are those of the hook.
    unsafe {
        let kind = Kind::of((*statement).utilityStmt);
        let since = begin(kind, (*statement).utilityStmt);
        let next = PREVIOUS_HOOK.get().unwrap_or(compat::STANDARD_PROCESS_UTILITY);
        next(
            statement,
            text,
            is_read_only,
            context,
            parameters,
            environment,
            destination,
            completion,
        );
        finish(kind, since);
    }
}

/// A kind of statement, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    /// Makes a trigger.
    CreateTrigger,
    /// May make a foreign key. CREATE TABLE comes here too, for each of its foreign keys.
    AlterTable,
    /// Makes a rule, for which PostgreSQL locks the table before it checks that the role owns it.
    CreateRule,
    /// Drops a trigger, rule or policy, for which the same is true.
    DropOfTable,
    /// Marks a trigger, or takes the mark away.
    MarkTrigger,
}

impl Kind {
    /// # Safety
    /// `node` is a utility statement.
    #[inline(always)]
    unsafe fn of(node: *const pg_sys::Node) -> Kind {
        // SAFETY: a node is read as the type of its tag.
        unsafe {
            match (*node).type_ {
                pg_sys::NodeTag::T_CreateTrigStmt => Kind::CreateTrigger,
                pg_sys::NodeTag::T_AlterTableStmt => Kind::AlterTable,
                pg_sys::NodeTag::T_RuleStmt => Kind::CreateRule,
                pg_sys::NodeTag::T_DropStmt => match (*node.cast::<pg_sys::DropStmt>()).removeType {
                    pg_sys::ObjectType::OBJECT_TRIGGER
                    | pg_sys::ObjectType::OBJECT_RULE
                    | pg_sys::ObjectType::OBJECT_POLICY => Kind::DropOfTable,
                    _ => Kind::Other,
                },
                pg_sys::NodeTag::T_AlterObjectDependsStmt => {
                    match (*node.cast::<pg_sys::AlterObjectDependsStmt>()).objectType {
                        pg_sys::ObjectType::OBJECT_TRIGGER => Kind::MarkTrigger,
                        _ => Kind::Other,
                    }
                }
                _ => Kind::Other,
            }
        }
    }
}

/// Checks what can be checked before the statement runs. Returns the number of the current command.
#[inline(always)]
unsafe fn begin(kind: Kind, node: *const pg_sys::Node) -> pg_sys::CommandId {
    match kind {
        Kind::Other => 0,
        // SAFETY: as the caller promises.
        _ => unsafe { check_before(kind as c_int, node) },
    }
}

/// Checks what the statement has made.
#[inline(always)]
unsafe fn finish(kind: Kind, since: pg_sys::CommandId) {
    if kind != Kind::Other {
        // SAFETY: in the transaction of the statement.
        unsafe { check_after(kind as c_int, since) };
    }
}

#[cold]
#[pg_guard]
unsafe extern "C-unwind" fn check_before(kind: c_int, node: *const pg_sys::Node) -> pg_sys::CommandId {
    // SAFETY: a node is read as the type that its kind says; a name in it is null or a RangeVar.
    unsafe {
        let since = pg_sys::GetCurrentCommandId(false);
        let Some(installed) = installed::try_get() else {
            return since;
        };
        if trust::is_trusted(compat::current_role(), &installed) {
            return since;
        }
        let is_ours = |name| catalog::table_named(name).filter(|table| installed.tables().contains(table));
        if kind == Kind::CreateTrigger as c_int {
            let statement = &*node.cast::<pg_sys::CreateTrigStmt>();
            if is_ours(statement.relation).is_some() {
                errors::untrusted_trigger();
            }
        } else if kind == Kind::AlterTable as c_int {
            let statement = &*node.cast::<pg_sys::AlterTableStmt>();
            for_each(statement.cmds, |command: *mut pg_sys::AlterTableCmd| {
                if let Some(referenced) = referenced_table(&*command)
                    && is_ours(referenced).is_some()
                {
                    errors::untrusted_foreign_key();
                }
            });
        } else if kind == Kind::CreateRule as c_int {
            let statement = &*node.cast::<pg_sys::RuleStmt>();
            if let Some(table) = is_ours(statement.relation) {
                catalog::must_be_owner(table);
            }
        } else if kind == Kind::DropOfTable as c_int {
            let statement = &*node.cast::<pg_sys::DropStmt>();
            for_each(statement.objects, |object: *mut pg_sys::List| {
                // The name of the table, and then that of the trigger.
                let name = pg_sys::list_truncate(pg_sys::list_copy(object), (*object).length - 1);
                if !name.is_null()
                    && let Some(table) = is_ours(pg_sys::makeRangeVarFromNameList(name))
                {
                    catalog::must_be_owner(table);
                }
            });
        } else if kind == Kind::MarkTrigger as c_int {
            let statement = &*node.cast::<pg_sys::AlterObjectDependsStmt>();
            if let Some(table) = is_ours(statement.relation) {
                catalog::must_be_owner(table);
            }
        }
        since
    }
}

/// Returns the table that a foreign key refers to which a command makes, if it makes one.
///
/// # Safety
/// The command is PostgreSQL's, not yet transformed.
unsafe fn referenced_table(command: &pg_sys::AlterTableCmd) -> Option<*const pg_sys::RangeVar> {
    // SAFETY: as the caller promises; the definition is a constraint in a command that adds one.
    unsafe {
        if command.subtype != pg_sys::AlterTableType::AT_AddConstraint || command.def.is_null() {
            return None;
        }
        let constraint = &*command.def.cast::<pg_sys::Constraint>();
        (constraint.contype == pg_sys::ConstrType::CONSTR_FOREIGN).then_some(constraint.pktable.cast_const())
    }
}

/// Calls `f` with each element of a list.
///
/// # Safety
/// `list` is null or a list of pointers to `T`.
unsafe fn for_each<T>(list: *const pg_sys::List, mut f: impl FnMut(*mut T)) {
    // SAFETY: as the caller promises.
    unsafe {
        if let Some(list) = list.as_ref() {
            for position in 0..list.length as usize {
                f((*list.elements.add(position)).ptr_value.cast());
            }
        }
    }
}

#[cold]
#[pg_guard]
unsafe extern "C-unwind" fn check_after(kind: c_int, since: pg_sys::CommandId) {
    // SAFETY: reads globals of this process. The install and upgrade scripts mark their triggers themselves; pg_upgrade
    // restores triggers with their marks, whoever made them.
    if unsafe { pg_sys::creating_extension || pg_sys::IsBinaryUpgrade } {
        return;
    }
    let may_make_trigger = kind == Kind::CreateTrigger as c_int;
    if !may_make_trigger && kind != Kind::AlterTable as c_int && kind != Kind::MarkTrigger as c_int {
        return;
    }
    let Some(installed) = installed::try_get() else {
        return;
    };
    // SAFETY: makes what the statement has written visible to the scans below.
    unsafe { pg_sys::CommandCounterIncrement() };
    for table in installed.tables() {
        if kind == Kind::MarkTrigger as c_int {
            // SAFETY: sends an invalidation at commit. PostgreSQL sends none, as no backend keeps these dependencies.
            unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
            continue;
        }
        for trigger in catalog::triggers_written_since(table, since) {
            if trust::is_of_foreign_key(trigger.is_internal, trigger.function) {
                check_foreign_key(&trigger, &installed);
            } else if !trigger.is_internal && may_make_trigger {
                check_trigger(&trigger, table, &installed);
            }
        }
    }
}

/// Checks a foreign key to one of our tables. Errors: 42501 where the table that refers to ours belongs to others. Only
/// its owner can have made it, or a superuser, whom a table of others betrays as well.
fn check_foreign_key(trigger: &catalog::Trigger, installed: &Installed) {
    let owner = catalog::relation_owner(trigger.referencing);
    if owner.is_some_and(|owner| !trust::is_trusted(owner, installed)) {
        errors::untrusted_foreign_key();
    }
}

/// Checks a trigger on one of our tables, and marks it. Errors: 42501 where the owner or a superuser has not made it, or
/// where what it calls is not theirs.
fn check_trigger(trigger: &catalog::Trigger, table: pg_sys::Oid, installed: &Installed) {
    if !trust::is_trusted(compat::current_role(), installed)
        || !trust::dependencies_of(trigger.oid, installed).are_trusted
    {
        errors::untrusted_trigger();
    }
    catalog::make_depend_on_extension(trigger.oid, table, installed.extension);
}
