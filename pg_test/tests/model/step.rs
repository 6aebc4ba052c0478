//! The steps of a history, and how they are generated.

use proptest::{collection::vec, prelude::*};

/// Connections of a history.
pub const CONNECTIONS: usize = 3;
/// Users of a history.
pub const USERS: usize = 3;
/// Sessions are numbered in the order of their starts, modulo their number if there are fewer.
const SESSIONS: usize = 8;

/// Whether a function takes the session's id or its token.
#[derive(Clone, Copy, Debug)]
pub enum By {
    Id,
    Token,
}

/// One step. A connection's action is part of its open transaction, if there is one.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Action {
        connection: usize,
        action: Action,
    },
    /// The clock advances by hours.
    Clock(i64),
    /// `presence.active_timeout` becomes the long or the short one.
    Timeout {
        long: bool,
    },
    /// The worker catches up, and what it has written is compared too.
    Settle,
    /// The worker is terminated.
    KillWorker,
}

/// What a connection does.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Begin,
    Savepoint,
    RollbackToSavepoint,
    ReleaseSavepoint,
    Commit,
    Rollback,
    /// start_session(), with a lifetime of this many half hours or the default one.
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
    BeatIdle {
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
    /// release_session(), with a grace period of this many half hours.
    Release {
        session: usize,
        half_hours: i64,
    },
    /// bind_sessions(), with a grace period of this many half hours.
    Bind {
        session: usize,
        half_hours: i64,
    },
    /// The connection ends, and another takes its place.
    Reconnect,
    Rotate {
        session: usize,
    },
    /// A row inserted by plain SQL, silent for this many hours.
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
    /// set_status(), with a text of this number, valid for this many half hours or until it is cleared.
    Declare {
        user: usize,
        source: usize,
        word: Word,
        text: Option<u8>,
        half_hours: Option<i64>,
    },
    ClearStatus {
        user: usize,
        source: usize,
    },
    /// set_invisible().
    Hide {
        user: usize,
        invisible: bool,
    },
}

/// A word that is declared, or none: then there is a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    None,
    Busy,
    Away,
    Available,
}

/// The sources of declarations; the first is the user's own.
pub const SOURCES: [&str; 3] = ["manual", "calendar", "text"];

/// What plain SQL changes in a row.
#[derive(Clone, Copy, Debug)]
pub enum Update {
    LastActivity,
    IsActive(bool),
    Metadata,
    User(usize),
}

/// Generates histories of this many steps.
pub fn history(steps: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    vec(step(), steps)
}

fn step() -> impl Strategy<Value = Step> {
    let hours = 1..4_i64;
    prop_oneof![
        60 => (0..CONNECTIONS, action()).prop_map(|(connection, action)| Step::Action { connection, action }),
        8 => hours.prop_map(Step::Clock),
        1 => any::<bool>().prop_map(|long| Step::Timeout { long }),
        3 => Just(Step::Settle),
        1 => Just(Step::KillWorker),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let (user, session) = (0..USERS, 0..SESSIONS);
    let by = prop_oneof![Just(By::Id), Just(By::Token)];
    // Odd numbers, so that nothing ends at a full hour, where the clock always is.
    let half_hours = prop_oneof![Just(1_i64), Just(3), Just(5)];
    let word = prop_oneof![
        Just(Word::None),
        Just(Word::Busy),
        Just(Word::Away),
        Just(Word::Available)
    ];
    let declaration = (
        user.clone(),
        0..SOURCES.len(),
        word,
        proptest::option::of(0..2_u8),
        proptest::option::of(half_hours.clone()),
    );
    let update = prop_oneof![
        3 => Just(Update::LastActivity),
        1 => any::<bool>().prop_map(Update::IsActive),
        1 => Just(Update::Metadata),
        2 => user.clone().prop_map(Update::User),
    ];
    prop_oneof![
        6 => Just(Action::Begin),
        3 => Just(Action::Savepoint),
        2 => Just(Action::RollbackToSavepoint),
        1 => Just(Action::ReleaseSavepoint),
        5 => Just(Action::Commit),
        3 => Just(Action::Rollback),
        9 => (user.clone(), proptest::option::weighted(0.3, half_hours.clone()))
            .prop_map(|(user, half_hours)| Action::Start { user, half_hours }),
        2 => session.clone().prop_map(|session| Action::StartAgain { session }),
        8 => (session.clone(), by.clone()).prop_map(|(session, by)| Action::Beat { session, by }),
        6 => (session.clone(), by.clone()).prop_map(|(session, by)| Action::BeatIdle { session, by }),
        1 => Just(Action::BeatAll),
        5 => (session.clone(), by).prop_map(|(session, by)| Action::End { session, by }),
        1 => user.clone().prop_map(|user| Action::EndUser { user }),
        4 => (session.clone(), half_hours.clone())
            .prop_map(|(session, half_hours)| Action::Release { session, half_hours }),
        5 => (session.clone(), half_hours)
            .prop_map(|(session, half_hours)| Action::Bind { session, half_hours }),
        2 => Just(Action::Reconnect),
        1 => session.clone().prop_map(|session| Action::Rotate { session }),
        4 => (user, 0..4_i64, any::<bool>())
            .prop_map(|(user, hours, is_active)| Action::Insert { user, hours, is_active }),
        7 => (session.clone(), update).prop_map(|(session, what)| Action::Update { session, what }),
        3 => session.prop_map(|session| Action::Delete { session }),
        8 => declaration.prop_map(|(user, source, word, text, half_hours)| Action::Declare {
            user, source, word, text, half_hours,
        }),
        3 => (0..USERS, 0..SOURCES.len()).prop_map(|(user, source)| Action::ClearStatus { user, source }),
        5 => (0..USERS, any::<bool>()).prop_map(|(user, invisible)| Action::Hide { user, invisible }),
    ]
}
