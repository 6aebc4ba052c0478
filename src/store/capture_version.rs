//! Whether writes to the tables may have gone past the triggers that see them.

use pgrx::pg_sys;

use super::{
    statement::{Snapshot, Statement},
    value::Value,
};
use crate::pg::installed::Installed;

thread_local! {
    // Each ALTER TABLE ... ENABLE or DISABLE TRIGGER writes the row again, also where a transaction ends with what it began
    // with, as a restore does. ALTER TRIGGER ... DEPENDS ON EXTENSION writes another row.
    static CAPTURE_VERSION: Statement = const { Statement::on_many(
        |_| "SELECT hashtextextended(string_agg(format('%s %s %s', t.oid, t.xmin, d.xmin), ',' ORDER BY t.oid), 0)
             FROM pg_trigger t LEFT JOIN pg_depend d
                 ON d.classid = 'pg_trigger'::regclass AND d.objid = t.oid AND d.deptype = 'x'
             WHERE t.tgrelid IN ($1, $2)
                 AND t.tgname IN ('presence_capture', 'presence_capture_truncate', 'presence_compare')"
            .to_owned(),
        &[pg_sys::OIDOID, pg_sys::OIDOID],
    ) };
}

/// Returns a number other than 0 that changes where a trigger that sees what is written to the tables is created,
/// renamed, enabled or disabled. To be called in a transaction.
pub fn capture_version(install: &Installed) -> u64 {
    let tables = [Value::Oid(install.sessions), Value::Oid(install.presence)];
    let version = CAPTURE_VERSION.with(|statement| {
        statement.read(Snapshot::Latest, &tables, |rows| {
            rows.first().and_then(|row| row.bigint(1))
        })
    });
    version.map_or(1, |version| (version as u64).max(1))
}
