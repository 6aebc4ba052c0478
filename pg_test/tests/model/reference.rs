//! The documented behaviour in its smallest form: sessions, transactions, a clock.
//!
//! It knows nothing of memory, tables or workers. Times are half hours. The clock is always at a full hour, and whatever
//! ends does so in between, so that the duration of a step makes no difference.

use std::collections::BTreeMap;

use crate::step::{CONNECTIONS, SOURCES, USERS, Word};

/// Half hours.
pub type Time = i64;

pub const SHORT_TIMEOUT: Time = 3;
pub const LONG_TIMEOUT: Time = 7;
/// `presence.idle_timeout`.
pub const IDLE_TIMEOUT: Time = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Live until its timeout, release or expiry.
    Open,
    TimedOut,
    Ended,
    Deleted,
}

/// One session, as committed.
#[derive(Clone, Copy, Debug)]
struct Session {
    user: usize,
    state: State,
    last_activity: Time,
    expires_at: Time,
    release_at: Option<Time>,
    /// When somebody was last there, if the last heartbeat said that nobody is.
    active_at: Option<Time>,
    /// When its user was last shown again, after having been hidden, while the session was not live: nobody has seen it before.
    unseen_until: Time,
    /// The connection that the session is bound to, and the grace after its end.
    bound_to: Option<(usize, Time)>,
}

/// A session to insert.
#[derive(Clone, Copy, Debug)]
pub struct New {
    pub user: usize,
    pub is_active: bool,
    pub last_activity: Time,
    pub expires_at: Time,
}

/// What a transaction does to one session.
#[derive(Clone, Copy, Debug)]
pub enum Write {
    Insert(New),
    Beat(Time),
    End,
    Delete,
    Move(usize),
    /// bind_sessions(), of a session that the transaction has started: the connection, and the grace.
    Bind(usize, Time),
    /// release_session(), of such a session, by this connection.
    Release(usize, Time),
    /// A row written without a change to its presence.
    Touch,
    /// What is declared from now on, by the number of user and source.
    Declare(Option<Declaration>),
    /// The user is hidden, by its number.
    Hide,
    /// Or not any more, since then.
    Show(Time),
}

/// What one source declares of one user.
#[derive(Clone, Copy, Debug)]
pub struct Declaration {
    pub word: Word,
    pub text: Option<u8>,
    /// When it expires, and which call has said so: the duration of a step makes no difference but that.
    pub expires_at: Option<(Time, usize)>,
    /// When it was set, among all.
    pub order: usize,
}

impl Declaration {
    fn is_valid(&self, now: Time) -> bool {
        self.expires_at.is_none_or(|(at, _)| now < at)
    }
}

/// What is shown of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub status: &'static str,
    pub text: Option<u8>,
    pub expires_at: Option<(Time, usize)>,
    /// Whether all live sessions are idle.
    pub is_idle: bool,
}

impl Shown {
    /// Returns the same as a test's query does.
    pub fn in_words(&self) -> String {
        let text = self.text.map(|text| format!("text {text}"));
        let expires = self.expires_at.map(|_| "expires".to_owned());
        let idle = self.is_idle.then(|| "nobody there".to_owned());
        let words = [Some(self.status.to_owned()), text, expires, idle];
        words.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Declarations have numbers, too, above those of all sessions.
pub fn declared(user: usize, source: usize) -> Number {
    1_000_000 + user * SOURCES.len() + source
}

/// And so has what hides users.
pub fn hiding(user: usize) -> Number {
    2_000_000 + user
}

/// A session's number, in the order of their starts.
pub type Number = usize;

#[derive(Clone, Debug, Default)]
struct Transaction {
    writes: Vec<(Number, Write)>,
    /// How many writes there were at each savepoint.
    savepoints: Vec<usize>,
}

/// What one connection sees of one session, including its own writes.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub user: usize,
    pub ended: bool,
    pub expired: bool,
}

/// The state of the whole reference.
#[derive(Clone, Debug)]
pub struct Reference {
    now: Time,
    timeout: Time,
    sessions: BTreeMap<Number, Session>,
    transactions: [Option<Transaction>; CONNECTIONS],
    declarations: BTreeMap<Number, Declaration>,
    /// How many declarations were set.
    order: usize,
    hidden: [bool; USERS],
}

impl Reference {
    pub fn new() -> Reference {
        Reference {
            now: 0,
            timeout: SHORT_TIMEOUT,
            sessions: BTreeMap::new(),
            transactions: Default::default(),
            declarations: BTreeMap::new(),
            order: 0,
            hidden: [false; USERS],
        }
    }

    pub fn now(&self) -> Time {
        self.now
    }

    pub fn pass(&mut self, time: Time) {
        self.now += time;
    }

    /// Changes the timeout. Sessions that have timed out stay so until they beat; the server is given time to notice each of
    /// them before its timeout becomes longer.
    pub fn set_timeout(&mut self, timeout: Time) {
        let (now, old) = (self.now, self.timeout);
        for session in self.sessions.values_mut() {
            if session.state == State::Open && !session.is_live(now, old) {
                session.state = State::TimedOut;
            }
        }
        self.timeout = timeout;
    }

    /// Returns the number of live sessions of each user, as others are shown it.
    pub fn live(&self) -> [i64; USERS] {
        self.live_of(|user| self.hidden[user])
    }

    /// The same, as a connection is shown it that may have hidden somebody itself.
    pub fn live_to(&self, connection: usize) -> [i64; USERS] {
        self.live_of(|user| self.is_hidden(connection, user))
    }

    fn live_of(&self, is_hidden: impl Fn(usize) -> bool) -> [i64; USERS] {
        let mut live = [0; USERS];
        for session in self.sessions.values() {
            let shows = !is_hidden(session.user) && session.is_live(self.now, self.timeout);
            live[session.user] += i64::from(shows);
        }
        live
    }

    /// Returns whether a user is hidden, as a connection sees it.
    pub fn is_hidden(&self, connection: usize, user: usize) -> bool {
        let own = self.transactions[connection].as_ref().and_then(|open| {
            let of_user = open.writes.iter().rev().filter(|(of, _)| *of == hiding(user));
            of_user.map(|(_, write)| matches!(write, Write::Hide)).next()
        });
        own.unwrap_or(self.hidden[user])
    }

    /// Returns what is shown of each user to all who have declared nothing in a transaction that is still open.
    pub fn shown(&self) -> [Shown; USERS] {
        self.shown_by(
            |user| self.hidden[user],
            |number| self.declarations.get(&number).copied(),
        )
    }

    /// Returns what is shown of each user to a connection, which sees what it has declared itself.
    pub fn shown_to(&self, connection: usize) -> [Shown; USERS] {
        self.shown_by(
            |user| self.is_hidden(connection, user),
            |number| self.declaration(connection, number),
        )
    }

    fn shown_by(
        &self,
        is_hidden: impl Fn(usize) -> bool,
        declaration: impl Fn(Number) -> Option<Declaration>,
    ) -> [Shown; USERS] {
        let mut by_sessions = self.by_sessions();
        (0..USERS)
            .filter(|user| is_hidden(*user))
            .for_each(|user| by_sessions[user] = "inactive");
        std::array::from_fn(|user| {
            let valid = |source| declaration(declared(user, source)).filter(|row| row.is_valid(self.now));
            let rows = || (0..SOURCES.len()).filter_map(valid);
            let own = valid(0).filter(|row| row.word != Word::None);
            let last = rows().filter(|row| row.word != Word::None).max_by_key(|row| row.order);
            let decides = own.or(last).filter(|_| by_sessions[user] != "inactive");
            let speaks = rows().filter(|row| row.text.is_some()).max_by_key(|row| row.order);
            Shown {
                status: match decides.map(|row| row.word) {
                    Some(Word::Busy) => "busy",
                    Some(Word::Away) => "idle",
                    _ => by_sessions[user],
                },
                text: speaks.and_then(|row| row.text),
                expires_at: [decides, speaks]
                    .into_iter()
                    .flatten()
                    .filter_map(|row| row.expires_at)
                    .min(),
                is_idle: by_sessions[user] == "idle",
            }
        })
    }

    /// Returns what one source declares of one user, as a connection sees it.
    pub fn declaration(&self, connection: usize, number: Number) -> Option<Declaration> {
        let own = self.transactions[connection].as_ref().and_then(|open| {
            open.writes.iter().rev().find_map(|(of, write)| match write {
                Write::Declare(declaration) if *of == number => Some(*declaration),
                _ => None,
            })
        });
        own.unwrap_or_else(|| self.declarations.get(&number).copied())
    }

    /// Returns what a declaration makes of the one before: who says the same again only makes it valid for longer.
    pub fn declare(
        &mut self,
        before: Option<Declaration>,
        word: Word,
        text: Option<u8>,
        until: Option<Time>,
    ) -> Declaration {
        self.order += 1;
        let same = before.filter(|before| (before.word, before.text) == (word, text) && before.is_valid(self.now));
        Declaration {
            word,
            text,
            expires_at: until.map(|until| (until, self.order)),
            order: same.map_or(self.order, |before| before.order),
        }
    }

    /// Returns what the sessions of each user make of it.
    fn by_sessions(&self) -> [&'static str; USERS] {
        let mut statuses = ["inactive"; USERS];
        for session in self.sessions.values() {
            if session.is_live(self.now, self.timeout) {
                let status = &mut statuses[session.user];
                match session.active_at {
                    Some(at) if self.now >= at + IDLE_TIMEOUT && *status != "active" => *status = "idle",
                    Some(at) if self.now >= at + IDLE_TIMEOUT => {}
                    _ => *status = "active",
                }
            }
        }
        statuses
    }

    // Transactions.

    pub fn in_transaction(&self, connection: usize) -> bool {
        self.transactions[connection].is_some()
    }

    pub fn begin(&mut self, connection: usize) {
        self.transactions[connection] = Some(Transaction::default());
    }

    pub fn savepoint(&mut self, connection: usize) {
        if let Some(open) = &mut self.transactions[connection] {
            open.savepoints.push(open.writes.len());
        }
    }

    pub fn has_savepoint(&self, connection: usize) -> bool {
        let open = self.transactions[connection].as_ref();
        open.is_some_and(|open| !open.savepoints.is_empty())
    }

    pub fn roll_back_to_savepoint(&mut self, connection: usize) {
        if let Some(open) = &mut self.transactions[connection] {
            let kept = open.savepoints.last().copied().unwrap_or_default();
            open.writes.truncate(kept);
        }
    }

    pub fn release_savepoint(&mut self, connection: usize) {
        if let Some(open) = &mut self.transactions[connection] {
            open.savepoints.pop();
        }
    }

    pub fn commit(&mut self, connection: usize) {
        let open = self.transactions[connection].take();
        for (number, write) in open.unwrap_or_default().writes {
            self.apply(number, write);
        }
    }

    pub fn roll_back(&mut self, connection: usize) {
        self.transactions[connection] = None;
    }

    /// Writes in the connection's transaction, or in a transaction of its own.
    pub fn write(&mut self, connection: usize, number: Number, write: Write) {
        match &mut self.transactions[connection] {
            Some(open) => open.writes.push((number, write)),
            None => self.apply(number, write),
        }
    }

    fn apply(&mut self, number: Number, write: Write) {
        if let Write::Declare(declaration) = write {
            match declaration {
                Some(declaration) => self.declarations.insert(number, declaration),
                None => self.declarations.remove(&number),
            };
            return;
        }
        let user_hidden = || (number - hiding(0)) % USERS;
        match write {
            Write::Hide => {
                self.hidden[user_hidden()] = true;
                return;
            }
            // To others, the sessions start then.
            Write::Show(at) => {
                let user = user_hidden();
                self.hidden[user] = false;
                let (now, timeout) = (self.now, self.timeout);
                for session in self.sessions.values_mut().filter(|session| session.user == user) {
                    if session.is_live(now, timeout) {
                        session.last_activity = session.last_activity.max(at);
                        session.active_at = session.active_at.map(|active_at| active_at.max(at));
                    } else {
                        session.active_at = None;
                        session.unseen_until = at;
                    }
                }
                return;
            }
            _ => {}
        }
        if let Write::Insert(new) = write {
            let state = if new.is_active { State::Open } else { State::TimedOut };
            let session = Session {
                user: new.user,
                state,
                last_activity: new.last_activity,
                expires_at: new.expires_at,
                release_at: None,
                active_at: None,
                unseen_until: Time::MIN,
                bound_to: None,
            };
            self.sessions.insert(number, session);
        }
        let (now, timeout) = (self.now, self.timeout);
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        if session.state != State::Ended && session.state != State::Deleted {
            match write {
                Write::Beat(at) => session.record_activity(at),
                Write::End => session.state = State::Ended,
                Write::Bind(connection, grace) if now < session.expires_at => session.bind(connection, grace, now),
                Write::Release(connection, grace) if now < session.expires_at => {
                    session.release_by(connection, grace, now)
                }
                _ => {}
            }
            if session.state == State::Open && !session.is_live(now, timeout) {
                session.state = State::TimedOut;
            }
        }
        match write {
            Write::Delete => session.state = State::Deleted,
            Write::Move(user) => session.user = user,
            _ => {}
        }
    }

    // What takes effect at once.

    /// A beat of a committed session counts at once.
    pub fn beat(&mut self, number: Number) {
        let now = self.now;
        if let Some(session) = self.open(number) {
            session.record_activity(now);
        }
    }

    /// The same, of a client that nobody is at.
    pub fn beat_idle(&mut self, number: Number) {
        let now = self.now;
        if let Some(session) = self.open(number) {
            let last_there = match session.bound_to {
                Some(_) => now,
                None => session.last_activity,
            };
            let active_at = session.active_at.unwrap_or(last_there.max(session.unseen_until));
            session.record_activity(now);
            session.active_at = Some(active_at);
        }
    }

    pub fn release(&mut self, connection: usize, number: Number, grace: Time) {
        let now = self.now;
        if !self.sessions.contains_key(&number) {
            self.write(connection, number, Write::Release(connection, grace));
        } else if let Some(session) = self.open(number) {
            session.release_by(connection, grace, now);
        }
    }

    /// Binds a session to a connection: at once, or at the commit that starts it.
    pub fn bind(&mut self, connection: usize, number: Number, grace: Time) {
        let now = self.now;
        if !self.sessions.contains_key(&number) {
            self.write(connection, number, Write::Bind(connection, grace));
        } else if let Some(session) = self.open(number) {
            session.bind(connection, grace, now);
        }
    }

    /// A connection ends, and another takes its place.
    pub fn reconnect(&mut self, connection: usize) {
        self.roll_back(connection);
        let now = self.now;
        for session in self.sessions.values_mut() {
            if let Some((to, grace)) = session.bound_to
                && to == connection
                && now < session.expires_at
            {
                session.release(grace, now);
            }
        }
    }

    fn open(&mut self, number: Number) -> Option<&mut Session> {
        let now = self.now;
        self.sessions
            .get_mut(&number)
            .filter(|session| matches!(session.state, State::Open | State::TimedOut))
            .filter(|session| now < session.expires_at)
    }

    // What a connection sees.

    /// Returns a session as a connection sees it; none if there is no row.
    pub fn seen(&self, connection: usize, number: Number) -> Option<Seen> {
        let mut seen = self
            .sessions
            .get(&number)
            .filter(|session| session.state != State::Deleted)
            .map(|session| Seen {
                user: session.user,
                ended: session.state == State::Ended,
                expired: self.now >= session.expires_at,
            });
        let own = self.transactions[connection].iter();
        for (_, write) in own.flat_map(|open| &open.writes).filter(|(of, _)| *of == number) {
            match (write, &mut seen) {
                (Write::Insert(new), _) => {
                    seen = Some(Seen {
                        user: new.user,
                        ended: false,
                        expired: self.now >= new.expires_at,
                    });
                }
                (Write::Delete, _) => seen = None,
                (Write::End, Some(seen)) => seen.ended = true,
                (Write::Move(user), Some(seen)) => seen.user = *user,
                _ => {}
            }
        }
        seen
    }

    /// Whether another connection's transaction holds the row's lock.
    pub fn is_locked(&self, connection: usize, number: Number) -> bool {
        self.transactions
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != connection)
            .filter_map(|(_, open)| open.as_ref())
            .any(|open| open.writes.iter().any(|(of, _)| *of == number))
    }

    /// Whether any transaction that is open has written sessions.
    pub fn are_sessions_written(&self) -> bool {
        let open = self.transactions.iter().flatten();
        open.flat_map(|open| &open.writes)
            .any(|(number, _)| *number < declared(0, 0))
    }

    /// Whether the connection's own transaction has written the row.
    pub fn wrote(&self, connection: usize, number: Number) -> bool {
        let open = self.transactions[connection].as_ref();
        open.is_some_and(|open| open.writes.iter().any(|(of, _)| *of == number))
    }
}

impl Session {
    fn is_live(&self, now: Time, timeout: Time) -> bool {
        self.state == State::Open
            && now < self.expires_at
            && (self.bound_to.is_some()
                || now < self.last_activity + timeout && self.release_at.is_none_or(|at| now < at))
    }

    fn bind(&mut self, connection: usize, grace: Time, now: Time) {
        let active_at = self.active_at;
        self.record_activity(now);
        self.active_at = active_at;
        self.bound_to = Some((connection, grace));
    }

    fn release_by(&mut self, connection: usize, grace: Time, now: Time) {
        match self.bound_to {
            Some((other, _)) if other != connection => {}
            _ => self.release(grace, now),
        }
    }

    fn release(&mut self, grace: Time, now: Time) {
        let until = now + grace;
        self.release_at = Some(self.release_at.unwrap_or(until).min(until));
        if self.bound_to.take().is_some() {
            self.last_activity = now;
        }
    }

    fn record_activity(&mut self, at: Time) {
        self.last_activity = self.last_activity.max(at);
        self.state = State::Open;
        self.release_at = None;
        self.active_at = None;
    }
}
