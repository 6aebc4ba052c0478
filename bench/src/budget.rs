//! The performance budget: what each operation may cost, printed beside what was measured. Nothing is asserted.

/// One row of the budget.
pub struct Row {
    /// The name by which figures refer to it.
    pub key: &'static str,
    pub label: &'static str,
    /// The value to meet: a minimum where more is better, a maximum where less is.
    pub required: &'static str,
    pub aim: &'static str,
}

const fn row(key: &'static str, label: &'static str, required: &'static str, aim: &'static str) -> Row {
    Row {
        key,
        label,
        required,
        aim,
    }
}

/// The rows that the project's README shows.
pub const HEADLINES: &[&str] = &["heartbeat", "wal", "batch", "latency", "restart"];

/// All rows, in the order in which they are shown.
pub const ROWS: &[Row] = &[
    row(
        "heartbeat",
        "heartbeat by a service ÷ `SELECT 1`",
        "at least 0.90",
        "0.95",
    ),
    row(
        "claims",
        "heartbeat under JWT claims ÷ `SELECT 1` under the same claims",
        "at least 0.80",
        "0.88",
    ),
    row(
        "ceiling",
        "heartbeat ÷ baseline `UPDATE`, as a share of `SELECT 1` ÷ baseline `UPDATE`",
        "at least 0.85",
        "0.92",
    ),
    row(
        "wal",
        "WAL of 1 million steady heartbeats between flushes, bytes",
        "0",
        "0",
    ),
    row("xids", "transaction ids of the same", "0", "0"),
    row("dead_tuples", "dead tuples of the same", "0", "0"),
    row(
        "wal_with_flushes",
        "WAL with flushes, a heartbeat every 10 s ÷ baseline `UPDATE`",
        "at most 0.125",
        "0.083",
    ),
    row(
        "batch",
        "`heartbeat_many` of 1,000 ids in binary, per second and core",
        "at least 2,000,000",
        "5,000,000",
    ),
    row(
        "batch_in_server",
        "the same with ids built in the server",
        "at least 2,000,000",
        "5,000,000",
    ),
    row(
        "redis",
        "`heartbeat_many` ÷ Redis `ZADD` pipelined by 100, both from a client",
        "at least 3",
        "8",
    ),
    row("sweep", "sweep of 1 million sessions, ms", "at most 2", "0.5"),
    row(
        "latency",
        "change → listener, p99 at 1,000 changes/s, ms",
        "at most 20",
        "10",
    ),
    row(
        "mass_timeout",
        "1 million sessions time out at once: all written and notified, s",
        "at most 30",
        "15",
    ),
    row(
        "restart",
        "restart with 1 million sessions: complete, s",
        "at most 5",
        "2",
    ),
    row(
        "count",
        "`count(*) … WHERE is_online(id)` over 1 million users ÷ baseline join",
        "at least 2",
        "3",
    ),
    row("memory", "shared memory per session, bytes", "at most 256", "160"),
    row(
        "worker",
        "heartbeat p99 while the worker is busy ÷ while it is idle",
        "at most 1.5",
        "1.2",
    ),
    row(
        "neighbors",
        "CPU of the worker of an empty database while another holds 1 million sessions ÷ alone",
        "at most 1.2",
        "1",
    ),
];
