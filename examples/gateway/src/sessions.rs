//! Which sockets hold which sessions, and what the database has still to be told of them. It is kept as a state, not as a
//! queue of calls: what changes twice is told once, and after a lost connection everything can be told again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::message::Hello;
use crate::outbox::{Farewell, Outbox};

#[derive(Default)]
pub struct Sessions {
    state: Mutex<State>,
    changes: Notify,
}

#[derive(Default)]
struct State {
    arrivals: Vec<Arrival>,
    sessions: HashMap<Uuid, Session>,
    /// Those of which the database has something to be told.
    changed: HashSet<Uuid>,
}

/// A socket that has said hello.
pub struct Arrival {
    /// None if the token is of a session that exists.
    pub user_key: Option<String>,
    pub token: String,
    is_idle: bool,
    outbox: Outbox,
    seat: oneshot::Sender<Seat>,
}

impl Arrival {
    /// Whether the browser still waits.
    fn is_there(&self) -> bool {
        !self.seat.is_closed()
    }

    /// Closes the socket.
    pub fn turn_away(self, farewell: Farewell) {
        self.outbox.close(farewell);
    }
}

struct Session {
    user: Uuid,
    sockets: Vec<Socket>,
    /// Whether the present connection has to bind it: again for each socket, as it may have ended elsewhere.
    must_bind: bool,
    /// What the present connection has told last.
    told_idle: Option<bool>,
    has_said_bye: bool,
}

struct Socket {
    outbox: Outbox,
    is_idle: bool,
    /// Until the session is bound.
    waiting: Option<(oneshot::Sender<Seat>, String)>,
}

/// A socket's hold on its session, which is released when the last one is dropped.
pub struct Seat {
    sessions: Arc<Sessions>,
    socket: u64,
    session: Uuid,
    pub user: Uuid,
    pub token: String,
}

/// What the database has to be told.
#[derive(Default)]
pub struct Batch {
    pub end: Vec<Uuid>,
    pub release: Vec<Uuid>,
    pub bind: Vec<Uuid>,
    pub active: Vec<Uuid>,
    pub idle: Vec<Uuid>,
}

impl Session {
    /// Two pages may have the same token. One that somebody is at is enough.
    fn is_idle(&self) -> bool {
        self.sockets.iter().all(|socket| socket.is_idle)
    }
}

impl Sessions {
    /// Waits until there is something to tell.
    pub async fn changed(&self) {
        self.changes.notified().await;
    }

    /// Adds a socket. Its seat is sent once the session is bound; if there is no such session, the socket is closed.
    pub fn arrive(&self, hello: Hello, outbox: Outbox) -> oneshot::Receiver<Seat> {
        let is_idle = hello.idle;
        let (user_key, token) = hello.into_credentials();
        let (seat, receiver) = oneshot::channel();
        let arrivals = &mut self.state().arrivals;
        if arrivals.len() == arrivals.capacity() {
            // While the database is away, others come and go.
            arrivals.retain(Arrival::is_there);
        }
        arrivals.push(Arrival {
            user_key,
            token,
            is_idle,
            outbox,
            seat,
        });
        self.changes.notify_one();
        receiver
    }

    pub fn take_arrivals(&self, max: usize) -> Vec<Arrival> {
        let arrivals = &mut self.state().arrivals;
        arrivals.retain(Arrival::is_there);
        let count = arrivals.len().min(max);
        arrivals.drain(..count).collect()
    }

    /// After the connection was lost before there was an answer.
    pub fn put_back(&self, arrivals: Vec<Arrival>) {
        self.state().arrivals.extend(arrivals);
    }

    /// Adds a socket to its session, if there is one.
    pub fn admit(&self, arrival: Arrival, session: Option<(Uuid, Uuid)>) {
        let Some((id, user)) = session else {
            return arrival.turn_away(Farewell::Ended);
        };
        let state = &mut *self.state();
        let session = state.sessions.entry(id).or_insert_with(|| Session {
            user,
            sockets: Vec::new(),
            must_bind: true,
            told_idle: None,
            has_said_bye: false,
        });
        session.must_bind = true;
        session.sockets.push(Socket {
            outbox: arrival.outbox,
            is_idle: arrival.is_idle,
            waiting: Some((arrival.seat, arrival.token)),
        });
        state.changed.insert(id);
        self.changes.notify_one();
    }

    /// Takes what has to be told, of at most this many sessions.
    pub fn take_batch(&self, max: usize) -> Batch {
        let state = &mut *self.state();
        let mut batch = Batch::default();
        let ids: Vec<Uuid> = state.changed.iter().take(max).copied().collect();
        for id in ids {
            state.changed.remove(&id);
            let Some(session) = state.sessions.get_mut(&id) else {
                continue;
            };
            if session.has_said_bye {
                batch.end.push(id);
            } else if session.sockets.is_empty() {
                batch.release.push(id);
                state.sessions.remove(&id);
            } else {
                if session.must_bind {
                    batch.bind.push(id);
                    session.told_idle = None;
                }
                let is_idle = session.is_idle();
                if session.told_idle != Some(is_idle) {
                    session.told_idle = Some(is_idle);
                    let told = if is_idle { &mut batch.idle } else { &mut batch.active };
                    told.push(id);
                }
            }
        }
        batch
    }

    /// After sessions have been bound, but for those in `unbound`, for which memory has no room: tells their sockets.
    pub fn welcome(self: &Arc<Sessions>, bound: &[Uuid], unbound: &HashSet<Uuid>) {
        let mut seats = Vec::new();
        let mut state = self.state();
        for id in bound {
            let Some(session) = state.sessions.get_mut(id) else {
                continue;
            };
            session.must_bind = unbound.contains(id);
            for socket in &mut session.sockets {
                seats.extend(socket.waiting.take().map(|(sender, token)| {
                    let seat = Seat {
                        sessions: self.clone(),
                        socket: socket.outbox.id,
                        session: *id,
                        user: session.user,
                        token,
                    };
                    (sender, seat)
                }));
            }
        }
        drop(state);
        // Without the lock, which a seat takes when it is dropped, as one that nobody waits for any more is.
        for (sender, seat) in seats {
            drop(sender.send(seat));
        }
    }

    /// Closes the sockets of sessions that have ended.
    pub fn ended(&self, sessions: &[Uuid]) {
        let mut state = self.state();
        for session in sessions.iter().filter_map(|id| state.sessions.remove(id)) {
            let farewell = if session.has_said_bye {
                Farewell::Bye
            } else {
                Farewell::Ended
            };
            session.sockets.iter().for_each(|socket| socket.outbox.close(farewell));
        }
    }

    /// Tries again to bind those for which memory had no room; what is told with it is their heartbeat.
    pub fn retry(&self) {
        let state = &mut *self.state();
        let unbound = state.sessions.iter().filter(|(_, session)| session.must_bind);
        state.changed.extend(unbound.map(|(id, _)| *id));
        self.changes.notify_one();
    }

    /// Binds all again: another gateway may have taken one over and released it, for another page with the same token, or the
    /// last words of a former connection may have arrived after those of this one. Nobody is told of that.
    pub fn bind_again(&self) {
        let state = &mut *self.state();
        state.sessions.values_mut().for_each(|session| session.must_bind = true);
        state.changed.extend(state.sessions.keys());
        self.changes.notify_one();
    }

    /// After the connection is lost: its end has released what it had bound, and the next one has to be told everything.
    pub fn lost(&self) {
        let mut state = self.state();
        state.sessions.values_mut().for_each(|session| {
            let has_gone = |socket: &Socket| socket.waiting.as_ref().is_some_and(|(seat, _)| seat.is_closed());
            session.sockets.retain(|socket| !has_gone(socket));
        });
        state
            .sessions
            .retain(|_, session| !session.sockets.is_empty() || session.has_said_bye);
        drop(state);
        self.bind_again();
    }

    pub fn count(&self) -> usize {
        self.state().sessions.len()
    }

    /// Whether a session is to be ended, and has not been yet.
    pub fn has_byes(&self) -> bool {
        self.state().sessions.values().any(|session| session.has_said_bye)
    }

    /// Changes a session, if it has not ended meanwhile.
    fn change(&self, id: Uuid, change: impl FnOnce(&mut Session)) {
        let state = &mut *self.state();
        if let Some(session) = state.sessions.get_mut(&id) {
            change(session);
            state.changed.insert(id);
            self.changes.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    /// Whether it is of as many sessions as it may be.
    pub fn is_full(&self, max: usize) -> bool {
        let sessions = [&self.end, &self.release, &self.active, &self.idle];
        sessions.iter().map(|list| list.len()).sum::<usize>() >= max
    }
}

impl Seat {
    /// Says whether nobody is at the page.
    pub fn set_idle(&self, is_idle: bool) {
        self.sessions.change(self.session, |session| {
            let own = session
                .sockets
                .iter_mut()
                .find(|socket| socket.outbox.id == self.socket);
            own.into_iter().for_each(|socket| socket.is_idle = is_idle);
        });
    }

    /// Ends the session, which closes its sockets.
    pub fn bye(&self) {
        self.sessions
            .change(self.session, |session| session.has_said_bye = true);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.sessions.change(self.session, |session| {
            session.sockets.retain(|socket| socket.outbox.id != self.socket);
        });
    }
}
