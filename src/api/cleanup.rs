//! The worker's cleaning, by hand.

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

/// Marks sessions that have timed out as not active, ends those that have expired, and deletes those that are not active
/// and have been silent for longer than `presence.retention`. For services (42501); errors with 25006 on a standby.
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
    Composite(cleanup::run(roster::tenant()))
}
