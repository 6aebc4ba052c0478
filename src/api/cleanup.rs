//! The worker's cleanup, run by hand.

use pgrx::pg_extern;

use super::{
    caller,
    result::{Composite, ToRow},
};
use crate::{
    roster,
    store::{
        cleanup::{self, Cleaned},
        value::Value,
    },
};

impl ToRow for Cleaned {
    fn with_row<R>(&self, take: impl FnOnce(&[Value]) -> R) -> R {
        take(&[Value::Bigint(self.deactivated), Value::Bigint(self.deleted)])
    }
}

/// Marks sessions that have timed out as not active, ends those that have expired, and deletes those that are not
/// active and have been silent for longer than `presence.retention`. Returns the numbers of rows. Errors: 42501 where
/// the caller is not a service, 25006 on a standby, 55000 where the library is not preloaded.
#[pg_extern(
    requires = ["types"],
    sql = r#"
CREATE FUNCTION @extschema@.cleanup_sessions() RETURNS @extschema@.presence_cleanup
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
fn cleanup_sessions() -> Composite<Cleaned> {
    caller::require_writable();
    caller::require_service();
    Composite(cleanup::clean_all_sessions(roster::tenant()))
}
