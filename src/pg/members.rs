//! The members of the extension, as `pg_depend` lists them.

use pgrx::pg_sys;

/// A row of `pg_depend`, for which pgrx has no bindings.
#[repr(C)]
struct Dependency {
    classid: pg_sys::Oid,
    objid: pg_sys::Oid,
    objsubid: i32,
    refclassid: pg_sys::Oid,
    refobjid: pg_sys::Oid,
    refobjsubid: i32,
    /// `e`: a member of an extension.
    deptype: u8,
}

/// The OIDs of the catalog and of its index `pg_depend_reference_index`, the same in every version.
const DEPEND: pg_sys::Oid = pg_sys::Oid::from_u32(2608);
const DEPEND_REFERENCE_INDEX: pg_sys::Oid = pg_sys::Oid::from_u32(2674);
/// The attribute numbers of `refclassid` and `refobjid`.
const REFCLASSID: i16 = 4;
const REFOBJID: i16 = 5;

/// Returns the tables that belong to the extension, sorted by OID.
pub fn tables(extension: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut tables = Vec::new();
    // SAFETY: a catalog index scan under an AccessShareLock; the keys outlive the scan, each row is read before the next
    // is fetched, and the type of a row has the columns of the catalog up to `deptype`, none of which is ever null.
    unsafe {
        let catalog = pg_sys::table_open(DEPEND, pg_sys::AccessShareLock as i32);
        let mut keys = [pg_sys::ScanKeyData::default(); 2];
        for (key, (column, value)) in keys
            .iter_mut()
            .zip([(REFCLASSID, pg_sys::ExtensionRelationId), (REFOBJID, extension)])
        {
            pg_sys::ScanKeyInit(
                key,
                column,
                pg_sys::BTEqualStrategyNumber as u16,
                pg_sys::F_OIDEQ.into(),
                pg_sys::Datum::from(value),
            );
        }
        let scan = pg_sys::systable_beginscan(
            catalog,
            DEPEND_REFERENCE_INDEX,
            true,
            std::ptr::null_mut(),
            keys.len() as i32,
            keys.as_mut_ptr(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::GETSTRUCT(tuple).cast::<Dependency>();
            if (*row).deptype == b'e'
                && (*row).classid == pg_sys::RelationRelationId
                && pg_sys::get_rel_relkind((*row).objid) as u8 == pg_sys::RELKIND_RELATION
            {
                tables.push((*row).objid);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
    }
    tables.sort_unstable_by_key(|table: &pg_sys::Oid| table.to_u32());
    tables
}
