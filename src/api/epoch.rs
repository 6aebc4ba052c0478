//! The epoch of the change feed, renewed by hand.

use pgrx::pg_extern;

use super::caller;
use crate::store::statement::Statement;

thread_local! {
    static RENEW: Statement = const { Statement::new(
        // A new row, not an update: the worker notices rows that come and go within a second.
        |s| format!(
            "WITH deleted AS (DELETE FROM {s}._feed_state RETURNING seq, oldest_seq, origin)
             INSERT INTO {s}._feed_state (epoch, seq, oldest_seq, origin)
             SELECT gen_random_uuid()::text, seq, oldest_seq, origin FROM deleted"
        ),
        &[],
    ) };
}

/// Gives the change feed a new epoch: for a copy of a server that was shut down cleanly, which cannot be told from the
/// original. Clients start over. Errors: 42501 unless the caller is the owner of the extension's tables or of the
/// database, 25006 on a standby, 55000 where the library is not preloaded.
#[pg_extern(volatile, parallel_unsafe)]
pub fn renew_epoch() {
    caller::require_writable();
    caller::require_owner();
    RENEW.with(|statement| statement.write(&[], |_| ()));
}
