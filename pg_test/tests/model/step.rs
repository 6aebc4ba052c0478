//! What a history is made of.

use proptest::{collection::vec, prelude::*};

/// Connections that take part.
pub const CONNECTIONS: usize = 3;
/// Users that take part.
pub const USERS: usize = 3;
/// Sessions are named by the order they began in, around again where there are fewer.
const SESSIONS: usize = 8;

/// Whether a function is told the session's id or its token.
#[derive(Clone, Copy, Debug)]
pub enum By {
    Id,
    Token,
}

/// One step. Those of a connection are part of the transaction it is in, if it is in one.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Act {
        connection: usize,
        act: Act,
    },
    /// The clock moves on by hours.
    Clock(i64),
    /// `presence.active_timeout` becomes the long or the short one.
    Timeout {
        long: bool,
    },
    /// The worker has time to catch up, and is compared too.
    Settle,
    /// The worker is terminated.
    KillWorker,
}

/// What a connection does.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Begin,
    Savepoint,
    RollbackToSavepoint,
    ReleaseSavepoint,
    Commit,
    Rollback,
    /// start_session(), for so many half hours, or as many as there are by default.
    Start {
        user: usize,
        half_hours: Option<i64>,
    },
    /// start_session() once more with the token of a session.
    StartAgain {
        session: usize,
    },
    Beat {
        session: usize,
        by: By,
    },
    BeatAll,
    End {
        session: usize,
        by: By,
    },
    EndUser {
        user: usize,
    },
    /// release_session(), for so many half hours.
    Release {
        session: usize,
        half_hours: i64,
    },
    Rotate {
        session: usize,
    },
    /// A row by plain SQL, silent for so many hours.
    Insert {
        user: usize,
        hours: i64,
        is_active: bool,
    },
    Update {
        session: usize,
        what: Update,
    },
    Delete {
        session: usize,
    },
}

/// What plain SQL changes in a row.
#[derive(Clone, Copy, Debug)]
pub enum Update {
    LastActivity,
    IsActive(bool),
    Metadata,
    User(usize),
}

/// Histories of about so many steps.
pub fn history(steps: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    vec(step(), steps)
}

fn step() -> impl Strategy<Value = Step> {
    let hours = 1..4_i64;
    prop_oneof![
        60 => (0..CONNECTIONS, act()).prop_map(|(connection, act)| Step::Act { connection, act }),
        8 => hours.prop_map(Step::Clock),
        1 => any::<bool>().prop_map(|long| Step::Timeout { long }),
        3 => Just(Step::Settle),
        1 => Just(Step::KillWorker),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let (user, session) = (0..USERS, 0..SESSIONS);
    let by = prop_oneof![Just(By::Id), Just(By::Token)];
    // Odd numbers, so that nothing ends at the hour, which is when the clock is looked at.
    let half_hours = prop_oneof![Just(1_i64), Just(3), Just(5)];
    let update = prop_oneof![
        3 => Just(Update::LastActivity),
        1 => any::<bool>().prop_map(Update::IsActive),
        1 => Just(Update::Metadata),
        2 => user.clone().prop_map(Update::User),
    ];
    prop_oneof![
        6 => Just(Act::Begin),
        3 => Just(Act::Savepoint),
        2 => Just(Act::RollbackToSavepoint),
        1 => Just(Act::ReleaseSavepoint),
        5 => Just(Act::Commit),
        3 => Just(Act::Rollback),
        9 => (user.clone(), proptest::option::weighted(0.3, half_hours.clone()))
            .prop_map(|(user, half_hours)| Act::Start { user, half_hours }),
        2 => session.clone().prop_map(|session| Act::StartAgain { session }),
        8 => (session.clone(), by.clone()).prop_map(|(session, by)| Act::Beat { session, by }),
        1 => Just(Act::BeatAll),
        5 => (session.clone(), by).prop_map(|(session, by)| Act::End { session, by }),
        1 => user.clone().prop_map(|user| Act::EndUser { user }),
        4 => (session.clone(), half_hours)
            .prop_map(|(session, half_hours)| Act::Release { session, half_hours }),
        1 => session.clone().prop_map(|session| Act::Rotate { session }),
        4 => (user, 0..4_i64, any::<bool>())
            .prop_map(|(user, hours, is_active)| Act::Insert { user, hours, is_active }),
        7 => (session.clone(), update).prop_map(|(session, what)| Act::Update { session, what }),
        3 => session.prop_map(|session| Act::Delete { session }),
    ]
}
