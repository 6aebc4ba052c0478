//! How many sessions a client may have.

use std::cell::Cell;

use pgrx::pg_sys;
use uuid::Uuid;

use crate::core::time::Micros;
use crate::store::statement::{Sees, Statement};
use crate::store::value::Value;
use crate::{errors, settings};

thread_local! {
    static COUNT: Statement = const { Statement::new(
        "SELECT count(*) FROM (SELECT FROM {s}.user_sessions \
             WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 LIMIT $3) counted",
        &[pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID],
    ) };
    static LET_IN: Cell<Option<LetIn>> = const { Cell::new(None) };
}

/// The sessions that the running command has started: no snapshot shows what a command itself has written.
#[derive(Clone, Copy)]
struct LetIn {
    command: Command,
    user_id: Uuid,
    sessions: i64,
}

/// A command of a transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Command {
    began: Micros,
    number: pg_sys::CommandId,
}

impl Command {
    fn running() -> Command {
        // SAFETY: both read variables of this process; the command is not marked as one that writes.
        unsafe {
            Command {
                began: pg_sys::GetCurrentTransactionStartTimestamp(),
                number: pg_sys::GetCurrentCommandId(false),
            }
        }
    }
}

/// Refuses one more session, with 53400, where the user has as many that have not ended as
/// `presence.max_sessions_per_user` allows. Sessions that other transactions are just starting are not counted.
pub fn check(user_id: Uuid, now: Micros) {
    // Without it one statement that inserts many rows would not see its own.
    // SAFETY: allowed wherever a statement may write, which is where a session starts.
    unsafe { pg_sys::CommandCounterIncrement() };
    let most = settings::max_sessions_per_user() as i64;
    let values = [Value::Uuid(&user_id), Value::Time(now), Value::Big(most)];
    let counted = COUNT.with(|count| {
        count.read(Sees::Latest, &values, |rows| {
            rows.first().and_then(|row| row.big(1)).unwrap_or(0)
        })
    });
    let command = Command::running();
    let before = LET_IN
        .get()
        .filter(|let_in| let_in.command == command && let_in.user_id == user_id)
        .map_or(0, |let_in| let_in.sessions);
    if counted + before >= most {
        errors::too_many_sessions();
    }
    LET_IN.set(Some(LetIn {
        command,
        user_id,
        sessions: before + 1,
    }));
}
