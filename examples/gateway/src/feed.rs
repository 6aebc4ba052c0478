//! The change feed, followed once for all sockets, and who of them wants to know of whom.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use pg_presence_client::{Event, Follower, User};
use serde_json::json;
use uuid::Uuid;

use crate::outbox::Outbox;

#[derive(Default)]
pub struct Feed {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Who is online.
    users: HashMap<Uuid, User>,
    /// The same as a message, once somebody has asked for all.
    all: Option<Utf8Bytes>,
    /// Whether `users` is up to date, as far as is known.
    is_live: bool,
    /// By the numbers of the sockets.
    followers: HashMap<u64, Follows>,
    of_all: HashMap<u64, Outbox>,
    of_user: HashMap<Uuid, HashMap<u64, Outbox>>,
}

struct Follows {
    outbox: Outbox,
    /// `None`: all.
    users: Option<HashSet<Uuid>>,
}

impl Feed {
    /// Passes on what the follower tells.
    pub async fn follow(&self, mut follower: Follower) -> Infallible {
        loop {
            let event = follower.next().await;
            let state = &mut *self.state();
            match event {
                Event::Snapshot(users) => state.replace(users),
                Event::Changed(users) => state.update(users),
                Event::Live => state.set_live(true),
                Event::Stale(error) => {
                    if state.is_live {
                        eprintln!("could not follow the feed: {error}");
                    }
                    state.set_live(false);
                }
                Event::Notified { .. } => {}
            }
        }
    }

    /// Tells a socket who of these users, or of all, is online, and from now on what changes. An application decides here
    /// who may see whom, and hardly ever lets anybody see all.
    pub fn subscribe(&self, outbox: &Outbox, users: Option<HashSet<Uuid>>) {
        self.unsubscribe(outbox);
        let state = &mut *self.state();
        match &users {
            None => drop(state.of_all.insert(outbox.id, outbox.clone())),
            Some(users) => {
                for user in users {
                    let followers = state.of_user.entry(*user).or_default();
                    followers.insert(outbox.id, outbox.clone());
                }
            }
        }
        state.tell_all(outbox, users.as_ref());
        let outbox = outbox.clone();
        state.followers.insert(outbox.id, Follows { outbox, users });
    }

    pub fn unsubscribe(&self, outbox: &Outbox) {
        let state = &mut *self.state();
        state.of_all.remove(&outbox.id);
        let follows = state.followers.remove(&outbox.id);
        for user in follows.and_then(|follows| follows.users).into_iter().flatten() {
            if let Some(followers) = state.of_user.get_mut(&user) {
                followers.remove(&outbox.id);
                if followers.is_empty() {
                    state.of_user.remove(&user);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// `{"users": […], "live": true}`: who is online. It replaces all that the page knew.
    fn tell_all(&mut self, outbox: &Outbox, users: Option<&HashSet<Uuid>>) {
        let message = |online: Vec<_>| Utf8Bytes::from(json!({ "users": online, "live": self.is_live }).to_string());
        let message = match (users, &self.all) {
            (Some(ids), _) => message(ids.iter().filter_map(|id| self.users.get(id)).map(json).collect()),
            (None, Some(all)) => all.clone(),
            (None, None) => {
                let all = message(self.users.values().map(json).collect());
                self.all.insert(all).clone()
            }
        };
        outbox.send(message);
    }

    fn replace(&mut self, users: Vec<User>) {
        let online = users.into_iter().filter(User::is_online);
        self.users = online
            .filter_map(|user| Some((user.user_id.parse().ok()?, user)))
            .collect();
        self.all = None;
        let followers = std::mem::take(&mut self.followers);
        for follows in followers.values() {
            self.tell_all(&follows.outbox, follows.users.as_ref());
        }
        self.followers = followers;
    }

    /// `{"changed": […]}`: the users whose status has changed, oldest change first.
    fn update(&mut self, users: Vec<User>) {
        self.all = None;
        let mut all = Vec::new();
        let mut own: HashMap<u64, (&Outbox, Vec<usize>)> = HashMap::new();
        for user in users {
            let Ok(id) = user.user_id.parse() else { continue };
            for (socket, outbox) in self.of_user.get(&id).into_iter().flatten() {
                own.entry(*socket).or_insert((outbox, Vec::new())).1.push(all.len());
            }
            all.push(json(&user));
            if user.is_online() {
                self.users.insert(id, user);
            } else {
                self.users.remove(&id);
            }
        }
        for (outbox, changes) in own.into_values() {
            let changes: Vec<_> = changes.into_iter().map(|at| &all[at]).collect();
            outbox.send(json!({ "changed": changes }).to_string().into());
        }
        let message = Utf8Bytes::from(json!({ "changed": all }).to_string());
        self.of_all.values().for_each(|outbox| outbox.send(message.clone()));
    }

    /// `{"live": false}`: what was told may be out of date, until `{"live": true}`.
    fn set_live(&mut self, is_live: bool) {
        if self.is_live != is_live {
            self.is_live = is_live;
            self.all = None;
            let message = Utf8Bytes::from(json!({ "live": is_live }).to_string());
            let outboxes = self.followers.values().map(|follows| &follows.outbox);
            outboxes.for_each(|outbox| outbox.send(message.clone()));
        }
    }
}

fn json(user: &User) -> serde_json::Value {
    json!({
        "user_id": user.user_id,
        "user_key": user.user_key,
        "status": user.status.to_string(),
        "changed_at": user.changed_at,
        "last_seen": user.last_seen,
        "seq": user.seq,
    })
}
