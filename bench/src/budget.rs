//! What it must cost: the rows of the project's budget, beside which measured values are printed. Nothing is asserted.

/// One row: what is measured, what is asked for at least, and what is aimed at.
pub struct Row {
    pub key: &'static str,
    pub label: &'static str,
    pub at_least: &'static str,
    pub aim: &'static str,
}

const fn row(
    key: &'static str,
    label: &'static str,
    at_least: &'static str,
    aim: &'static str,
) -> Row {
    Row {
        key,
        label,
        at_least,
        aim,
    }
}

/// In the order in which they are shown.
pub const ROWS: &[Row] = &[
    row(
        "heartbeat",
        "heartbeat by a service ÷ `SELECT 1`",
        "0.90",
        "0.95",
    ),
    row(
        "claims",
        "heartbeat under JWT claims ÷ `SELECT 1` under the same",
        "0.80",
        "0.88",
    ),
    row(
        "ceiling",
        "heartbeat ÷ the seed's `UPDATE`, as a share of `SELECT 1` ÷ that `UPDATE`",
        "0.85",
        "0.92",
    ),
    row(
        "wal",
        "WAL of 1 million steady beats between flushes, bytes",
        "0",
        "0",
    ),
    row("xids", "transaction ids of the same", "0", "0"),
    row("dead", "dead tuples of the same", "0", "0"),
    row(
        "wal_flushed",
        "WAL with flushes, a beat every 10 s ÷ the seed's",
        "0.125",
        "0.083",
    ),
    row(
        "many",
        "`heartbeat_many` of 1,000 ids in binary, per second of one core",
        "2,000,000",
        "5,000,000",
    ),
    row(
        "many_inside",
        "the same with ids built in the server",
        "2,000,000",
        "5,000,000",
    ),
    row(
        "redis",
        "`heartbeat_many` ÷ Redis `ZADD` pipelined by 100, both from a client",
        "3",
        "8",
    ),
    row("sweep", "sweep of 1 million sessions, ms", "2", "0.5"),
    row(
        "latency",
        "change → listener, p99 at 1,000 changes/s, ms",
        "20",
        "10",
    ),
    row(
        "silence",
        "1 million sessions silent at once: all written and told, s",
        "30",
        "15",
    ),
    row(
        "restart",
        "restart with 1 million sessions: complete in, s",
        "5",
        "2",
    ),
    row(
        "count",
        "`count(*) … WHERE is_online(id)` over 1 million users ÷ the seed's join",
        "2",
        "3",
    ),
    row("memory", "shared memory per session, bytes", "256", "160"),
    row(
        "worker",
        "beat p99 while the worker works ÷ while it is idle",
        "1.5",
        "1.2",
    ),
];
