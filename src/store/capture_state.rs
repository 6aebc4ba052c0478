//! Whether writes to the tables may have gone past the triggers that see them.

use pgrx::pg_sys;

use super::{
    statement::{Snapshot, Statement},
    value::Value,
};
use crate::pg::installed::Installed;

thread_local! {
    // Each ALTER TABLE ... ENABLE or DISABLE TRIGGER writes the row again, also where a transaction ends with what it began
    // with, as a restore does. ALTER TRIGGER ... DEPENDS ON EXTENSION writes another row. What rewrites a column, as
    // ALTER COLUMN ... TYPE ... USING does, fires no trigger, but puts the table into another file.
    static CAPTURE_STATE: Statement = const { Statement::on_many(
        |_| "WITH triggers AS (
                 SELECT t.oid, t.tgname, t.tgenabled, t.xmin, d.refobjid AS extension, d.xmin AS marked_by
                 FROM pg_trigger t LEFT JOIN pg_depend d
                     ON d.classid = 'pg_trigger'::regclass AND d.objid = t.oid AND d.deptype = 'x'
                         AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = $3
                 WHERE t.tgrelid IN ($1, $2)
                     AND t.tgname IN ('presence_capture', 'presence_capture_truncate', 'presence_compare')
             ), columns AS (
                 SELECT attnum, atttypid FROM pg_attribute
                 WHERE attrelid = $1 AND attname IN ('id', 'user_id', 'auth_id', 'session_token', 'is_active',
                                                     'last_activity', 'expires_at', 'ended_at', 'user_key')
             )
             SELECT hashtextextended(concat_ws(';',
                        (SELECT string_agg(format('%s %s %s', oid, xmin, marked_by), ',' ORDER BY oid) FROM triggers),
                        (SELECT string_agg(format('%s %s', attnum, atttypid), ',' ORDER BY attnum) FROM columns),
                        (SELECT relfilenode FROM pg_class WHERE oid = $1)), 0),
                    2 = (SELECT count(*) FROM triggers
                         WHERE tgname <> 'presence_compare' AND tgenabled = 'A' AND extension IS NOT NULL)"
            .to_owned(),
        &[pg_sys::OIDOID, pg_sys::OIDOID, pg_sys::OIDOID],
    ) };
}

/// How the triggers that see what is written to the tables stand.
#[derive(Clone, Copy, Debug)]
pub struct CaptureState {
    /// A number other than 0 that changes where one of them is created, renamed, enabled or disabled, and where a column
    /// may have been rewritten, which they do not see.
    pub version: u64,
    /// Whether those of `user_sessions` are fired by every write.
    pub is_enabled: bool,
}

/// Reads the state. To be called in a transaction.
pub fn read(install: &Installed) -> CaptureState {
    let values = [install.sessions, install.presence, install.extension].map(Value::Oid);
    CAPTURE_STATE.with(|statement| {
        statement.read(Snapshot::Latest, &values, |rows| {
            let row = rows.first();
            let version = row.as_ref().and_then(|row| row.bigint(1)).unwrap_or(0);
            CaptureState {
                version: (version as u64).max(1),
                is_enabled: row.and_then(|row| row.bool(2)).unwrap_or(false),
            }
        })
    })
}
