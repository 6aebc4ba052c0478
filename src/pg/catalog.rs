//! Owners and dependencies of objects, from the system catalogs.

use std::ptr::null_mut;

use pgrx::pg_sys::{self, Oid};

/// `pg_operator`, which pgrx does not bind.
pub const OPERATOR_RELATION: Oid = Oid::from_u32(2617);
const DEPEND_RELATION: Oid = Oid::from_u32(2608);
const DEPEND_DEPENDER_INDEX: Oid = Oid::from_u32(2673);

/// A row of `pg_depend`, which pgrx does not bind.
#[repr(C)]
struct FormDataPgDepend {
    classid: Oid,
    objid: Oid,
    objsubid: i32,
    refclassid: Oid,
    refobjid: Oid,
    refobjsubid: i32,
    deptype: std::ffi::c_char,
}

/// Returns the owner of a function.
pub fn function_owner(function: Oid) -> Option<Oid> {
    // SAFETY: rows of pg_proc.
    unsafe {
        fixed_columns(
            pg_sys::SysCacheIdentifier::PROCOID,
            function,
            |row: &pg_sys::FormData_pg_proc| row.proowner,
        )
    }
}

/// Returns the owner of a type.
pub fn type_owner(id: Oid) -> Option<Oid> {
    // SAFETY: rows of pg_type.
    unsafe {
        fixed_columns(
            pg_sys::SysCacheIdentifier::TYPEOID,
            id,
            |row: &pg_sys::FormData_pg_type| row.typowner,
        )
    }
}

/// Returns the owner of a table.
pub fn relation_owner(relation: Oid) -> Option<Oid> {
    // SAFETY: rows of pg_class.
    unsafe {
        fixed_columns(
            pg_sys::SysCacheIdentifier::RELOID,
            relation,
            |row: &pg_sys::FormData_pg_class| row.relowner,
        )
    }
}

/// Returns the owner of this database.
pub fn database_owner() -> Option<Oid> {
    // SAFETY: rows of pg_database; reads a global of this process.
    unsafe {
        fixed_columns(
            pg_sys::SysCacheIdentifier::DATABASEOID,
            pg_sys::MyDatabaseId,
            |row: &pg_sys::FormData_pg_database| row.datdba,
        )
    }
}

/// Returns the owner of an operator, and its function.
pub fn operator(operator: Oid) -> Option<(Oid, Oid)> {
    // SAFETY: rows of pg_operator.
    unsafe {
        fixed_columns(
            pg_sys::SysCacheIdentifier::OPEROID,
            operator,
            |row: &pg_sys::FormData_pg_operator| (row.oprowner, row.oprcode),
        )
    }
}

/// Returns what `read` finds in the fixed columns of a row, or `None` if there is no such row.
///
/// # Safety
/// The cache has the OID as its only key, and rows that start with the columns of `T`.
unsafe fn fixed_columns<T, R>(
    cache: pg_sys::SysCacheIdentifier::Type,
    id: Oid,
    read: impl FnOnce(&T) -> R,
) -> Option<R> {
    // SAFETY: the row stays pinned until ReleaseSysCache, and is read only before.
    unsafe {
        let row = pg_sys::SearchSysCache1(cache as i32, pg_sys::Datum::from(id));
        if row.is_null() {
            return None;
        }
        let found = read(&*pg_sys::GETSTRUCT(row).cast::<T>());
        pg_sys::ReleaseSysCache(row);
        Some(found)
    }
}

/// Returns the roles that have been granted USAGE on a type, without PUBLIC.
pub fn usage_grantees(id: Oid) -> Vec<Oid> {
    const HEADER: usize = size_of::<pg_sys::ArrayType>() + 2 * size_of::<i32>();
    let mut grantees = Vec::new();
    // SAFETY: the row stays pinned until ReleaseSysCache, and is read only before. An access list is an array of one
    // dimension without nulls; its elements follow the header, aligned to 8 bytes.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::TYPEOID as i32;
        let row = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(id));
        if row.is_null() {
            return grantees;
        }
        let mut is_null = false;
        let list = pg_sys::SysCacheGetAttr(cache, row, pg_sys::Anum_pg_type_typacl as i16, &mut is_null);
        if !is_null {
            let array = pg_sys::pg_detoast_datum(list.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            if (*array).ndim == 1 && (*array).dataoffset == 0 && (*array).elemtype == pg_sys::ACLITEMOID {
                let count = *array.add(1).cast::<i32>() as usize;
                let items = array.byte_add(HEADER.next_multiple_of(8)).cast::<pg_sys::AclItem>();
                for position in 0..count {
                    let item = items.add(position).read_unaligned();
                    let may_use = item.ai_privs & pg_sys::ACL_USAGE as pg_sys::AclMode != 0;
                    if may_use && item.ai_grantee != pg_sys::InvalidOid {
                        grantees.push(item.ai_grantee);
                    }
                }
            }
        }
        pg_sys::ReleaseSysCache(row);
    }
    grantees
}

/// Calls `f` with the catalog and the OID of each object that an object depends on.
pub fn for_each_dependency(class: Oid, object: Oid, mut f: impl FnMut(Oid, Oid)) {
    let keys = [(1, class), (2, object)];
    for_each_row(DEPEND_RELATION, DEPEND_DEPENDER_INDEX, &keys, |row| {
        // SAFETY: a row of pg_depend, whose columns all have a fixed size.
        let row = unsafe { &*pg_sys::GETSTRUCT(row).cast::<FormDataPgDepend>() };
        f(row.refclassid, row.refobjid);
    });
}

/// Calls `f` with each row of a catalog in which these columns have these values. The columns are the first of the
/// index, in order.
pub fn for_each_row(catalog: Oid, index: Oid, keys: &[(i16, Oid)], mut f: impl FnMut(pg_sys::HeapTuple)) {
    let mut scan_keys: Vec<_> = keys
        .iter()
        .map(|(column, value)| {
            let mut key = pg_sys::ScanKeyData::default();
            // SAFETY: a column of type oid, compared for equality.
            unsafe {
                pg_sys::ScanKeyInit(
                    &mut key,
                    *column,
                    pg_sys::BTEqualStrategyNumber as u16,
                    pg_sys::F_OIDEQ.into(),
                    pg_sys::Datum::from(*value),
                );
            }
            key
        })
        .collect();
    // SAFETY: a catalog index scan; the keys outlive it, and each row is valid until the next is fetched.
    unsafe {
        let relation = pg_sys::table_open(catalog, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::systable_beginscan(
            relation,
            index,
            true,
            null_mut(),
            scan_keys.len() as i32,
            scan_keys.as_mut_ptr(),
        );
        loop {
            let row = pg_sys::systable_getnext(scan);
            if row.is_null() {
                break;
            }
            f(row);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
}

/// A trigger, as far as `pg_trigger` says it in columns of a fixed size.
#[derive(Clone, Copy, Debug)]
pub struct Trigger {
    pub oid: Oid,
    pub function: Oid,
    pub is_internal: bool,
    /// The table that refers to this one, if the trigger is of a foreign key.
    pub referencing: Oid,
}

/// Returns the triggers of a table that this transaction has written since the command `since`.
pub fn triggers_written_since(table: Oid, since: pg_sys::CommandId) -> Vec<Trigger> {
    let mut found = Vec::new();
    let keys = [(pg_sys::Anum_pg_trigger_tgrelid as i16, table)];
    let index = Oid::from(pg_sys::TriggerRelidNameIndexId);
    for_each_row(pg_sys::TriggerRelationId, index, &keys, |row| {
        // SAFETY: a row of pg_trigger. Only rows of this transaction have its number; their command number is that of
        // the insert, as they are visible and so not deleted.
        unsafe {
            let header = (*(*row).t_data).t_choice.t_heap;
            if pg_sys::TransactionIdIsCurrentTransactionId(header.t_xmin) && header.t_field3.t_cid >= since {
                let trigger = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_trigger>();
                found.push(Trigger {
                    oid: trigger.oid,
                    function: trigger.tgfoid,
                    is_internal: trigger.tgisinternal,
                    referencing: trigger.tgconstrrelid,
                });
            }
        }
    });
    found
}

/// Makes a trigger depend on an extension, as ALTER TRIGGER … DEPENDS ON EXTENSION does, for which see there.
pub fn make_depend_on_extension(trigger: Oid, table: Oid, extension: Oid) {
    let address = |class, object| pg_sys::ObjectAddress {
        classId: class,
        objectId: object,
        objectSubId: 0,
    };
    let (depender, referenced) = (
        address(pg_sys::TriggerRelationId, trigger),
        address(pg_sys::ExtensionRelationId, extension),
    );
    // SAFETY: both objects exist, and the transaction may write, as it has made the trigger.
    unsafe {
        pg_sys::recordDependencyOn(
            &depender,
            &referenced,
            pg_sys::DependencyType::DEPENDENCY_AUTO_EXTENSION,
        );
        pg_sys::CacheInvalidateRelcacheByRelid(table);
    }
}

/// Returns the table that a parsed name refers to now, without locking it.
///
/// # Safety
/// `name` is null or a RangeVar.
pub unsafe fn table_named(name: *const pg_sys::RangeVar) -> Option<Oid> {
    if name.is_null() {
        return None;
    }
    // SAFETY: as the caller promises; without a lock, the name is looked up once, and nothing is checked.
    let found = unsafe {
        pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            null_mut(),
        )
    };
    (found != pg_sys::InvalidOid).then_some(found)
}

/// Raises what PostgreSQL raises where a role must be the owner of a table.
pub fn must_be_owner(table: Oid) -> ! {
    // SAFETY: raises an error; the name is null only if the table was dropped meanwhile, which aclcheck_error accepts.
    unsafe {
        pg_sys::aclcheck_error(
            pg_sys::AclResult::ACLCHECK_NOT_OWNER,
            pg_sys::ObjectType::OBJECT_TABLE,
            pg_sys::get_rel_name(table),
        );
    }
    unreachable!("an error did not raise")
}
