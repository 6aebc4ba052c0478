//! The epoch of the change feed, renewed by hand.

use pgrx::pg_extern;

use super::caller;
use crate::store::statement::Statement;

thread_local! {
    static RENEW: Statement = const { Statement::new(
        |s| format!("UPDATE {s}._feed_state SET epoch = gen_random_uuid()::text"),
        &[],
    ) };
}

/// Gives the change feed a new epoch: for a copy of a server that was shut down cleanly, which cannot be told from the
/// original. Clients start over. For the owner. Errors: 25006 on a standby.
#[pg_extern(volatile, parallel_unsafe)]
pub fn renew_epoch() {
    caller::require_writable();
    RENEW.with(|statement| statement.write(&[], |_| ()));
}
