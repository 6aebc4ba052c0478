//! The users and their presence as browsers show them, kept in memory: however many browsers are connected, each change
//! is read from the database once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pg_presence_client::{Event, Follower, Status, User as Presence};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};
use tokio::time::sleep;
use tokio_postgres::Row;

use crate::database::{Caller, Database};
use crate::error::Error;
use crate::log;

/// How many updates a slow browser may be behind before it is sent all users again.
const MAX_BEHIND: usize = 256;
const COLUMNS: &str = "u.id::text, u.name, u.title, p.is_online,
    (extract(epoch FROM p.last_seen) * 1000)::bigint AS last_seen, p.session_count::bigint AS sessions,
    p.status::text, p.status_text, p.emoji, (extract(epoch FROM p.status_expires_at) * 1000)::bigint AS status_expires_at";

/// One row of the page.
#[derive(Clone, PartialEq, Serialize)]
struct User {
    id: String,
    name: String,
    title: String,
    is_online: bool,
    /// In milliseconds since 1970; `None` for a user who never had a session.
    last_seen: Option<i64>,
    sessions: i64,
    /// `active`, `idle`, `busy` or `inactive`.
    status: String,
    /// What the user has declared, which no notification contains.
    status_text: Option<String>,
    emoji: Option<String>,
    /// In milliseconds since 1970.
    status_expires_at: Option<i64>,
}

/// An update for the streams of all browsers.
#[derive(Clone)]
pub enum Update {
    /// A server-sent event.
    Event { name: &'static str, data: Arc<str> },
    /// A login of this user has ended: the streams of the user check theirs.
    LoginEnded { user_id: String },
}

impl Update {
    fn event(name: &'static str, data: &impl Serialize) -> Update {
        Update::Event { name, data: json(data) }
    }
}

fn json(data: &impl Serialize) -> Arc<str> {
    serde_json::to_string(data).expect("plain data").into()
}

pub struct LiveUsers {
    database: Arc<Database>,
    state: Mutex<State>,
    updates: broadcast::Sender<Update>,
    refresh_requests: mpsc::UnboundedSender<String>,
}

#[derive(Default)]
struct State {
    users: BTreeMap<String, User>,
    /// Whether the connection that follows the changes is up.
    is_following: bool,
    /// Whether the users are known to be up to date.
    is_live: bool,
    /// When all of them were last read, in milliseconds since 1970: without the changes that follow, what browsers show
    /// is of then.
    read_at: Option<u64>,
    /// All this as browsers are sent it, until it changes.
    snapshot: Option<Arc<str>>,
}

impl State {
    /// Returns what browsers that are up to date have to be sent to know these users, if that is less than all of them.
    fn differences(&self, users: &BTreeMap<String, User>) -> Option<Vec<Update>> {
        let is_gone = |id| !users.contains_key(id);
        if !(self.is_live && self.is_following) || self.users.keys().any(is_gone) {
            return None;
        }
        let changed = users.values().filter(|user| self.users.get(&user.id) != Some(user));
        let updates: Vec<_> = changed
            .map(|user| Update::event("user", user))
            .take(MAX_BEHIND / 2)
            .collect();
        (updates.len() < MAX_BEHIND / 2).then_some(updates)
    }

    fn snapshot(&mut self) -> Arc<str> {
        let snapshot = self.snapshot.get_or_insert_with(|| {
            let users: Vec<_> = self.users.values().collect();
            let since = self.read_at.filter(|_| !self.is_live);
            json(&json!({ "users": users, "is_live": self.is_live, "since": since }))
        });
        snapshot.clone()
    }
}

impl LiveUsers {
    /// Starts a task that keeps the users up to date.
    pub fn start(database: Arc<Database>, follower: Follower) -> Arc<LiveUsers> {
        let (refresh_requests, requests) = mpsc::unbounded_channel();
        let users = Arc::new(LiveUsers {
            database,
            state: Mutex::default(),
            updates: broadcast::Sender::new(MAX_BEHIND),
            refresh_requests,
        });
        tokio::spawn(users.clone().run(follower, requests));
        users
    }

    /// Returns all users, as the data of an event, and a receiver of every update after that.
    pub fn subscribe(&self) -> (Arc<str>, broadcast::Receiver<Update>) {
        let mut state = self.state();
        (state.snapshot(), self.updates.subscribe())
    }

    /// Requests that a user is read again: a second session changes what is shown, but not the status.
    pub fn refresh(&self, user_id: String) {
        let _ = self.refresh_requests.send(user_id);
    }

    async fn run(self: Arc<LiveUsers>, mut follower: Follower, mut requests: mpsc::UnboundedReceiver<String>) {
        loop {
            let mut stale = Stale::default();
            tokio::select! {
                event = follower.next() => self.handle(event, &mut stale),
                user_id = requests.recv() => stale.users.extend(user_id),
            }
            // One query serves everything that is already waiting.
            while let Some(event) = follower.try_next() {
                self.handle(event, &mut stale);
            }
            while let Ok(user_id) = requests.try_recv() {
                stale.users.insert(user_id);
            }
            while let Err(error) = self.reload(&mut stale).await {
                log::error(format!("could not read the users: {error:?}"));
                self.disconnected();
                stale.all = true;
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Marks the users of an event as stale. Its statuses are only logged: browsers are sent what `reload` reads.
    fn handle(&self, event: Event, stale: &mut Stale) {
        self.state().is_following = !matches!(event, Event::Stale(_));
        match event {
            Event::Snapshot(users) => {
                let online = users.iter().filter(|user| user.is_online()).count();
                log::info(match users.len() {
                    0 => "          nobody has signed in yet".to_owned(),
                    all => format!("          {online} of {all} users are active"),
                });
                stale.all = true;
            }
            Event::Notified { channel, payload } if channel == "logins" => {
                let _ = self.updates.send(Update::LoginEnded { user_id: payload });
            }
            // The only other channel is that of the users table.
            Event::Notified { .. } | Event::Live => stale.all = true,
            Event::Changed(users) => {
                for user in users {
                    self.log(&user);
                    stale.users.insert(user.user_id);
                }
            }
            Event::Stale(error) => {
                log::error(format!("lost the connection to the database: {:?}", error.to_string()));
                *stale = Stale::default();
                self.disconnected();
            }
        }
    }

    /// Reads the stale users, and sends browsers what has changed.
    async fn reload(&self, stale: &mut Stale) -> Result<(), Error> {
        let at = unix_time_ms();
        if stale.all {
            let sql = format!(
                "SELECT {COLUMNS} FROM app.users u
                 JOIN presence.presence_of(ARRAY(SELECT id FROM app.users)) p ON p.user_id = u.id"
            );
            let rows = self.database.query(Caller::Server, &sql, &[]).await?;
            let users: BTreeMap<_, _> = rows.iter().map(user).map(|user| (user.id.clone(), user)).collect();
            let mut state = self.state();
            let differences = state.differences(&users);
            state.users = users;
            state.is_live = state.is_following;
            state.read_at = Some(at);
            state.snapshot = None;
            let updates = differences.unwrap_or_else(|| {
                let data = state.snapshot();
                vec![Update::Event { name: "users", data }]
            });
            for update in updates {
                let _ = self.updates.send(update);
            }
            return Ok(());
        }
        // Ids that are not in the table are skipped; a notification of the table announces new users.
        stale.users.retain(|id| self.state().users.contains_key(id));
        if !stale.users.is_empty() {
            let ids: Vec<_> = stale.users.iter().collect();
            let sql = format!(
                "SELECT {COLUMNS} FROM presence.presence_of($1::text[]::uuid[]) p JOIN app.users u ON u.id = p.user_id"
            );
            let rows = self.database.query(Caller::Server, &sql, &[&ids]).await?;
            let mut state = self.state();
            for user in rows.iter().map(user) {
                if state.users.get(&user.id) != Some(&user) {
                    state.snapshot = None;
                    let _ = self.updates.send(Update::event("user", &user));
                    state.users.insert(user.id.clone(), user);
                }
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a lock never poisoned")
    }

    /// Warns browsers, once, that what they show may be out of date, and since when.
    fn disconnected(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.is_live) {
            state.snapshot = None;
            let _ = self
                .updates
                .send(Update::event("disconnected", &json!({ "since": state.read_at })));
        }
    }

    fn log(&self, user: &Presence) {
        let name = self.state().users.get(&user.user_id).map(|user| user.name.clone());
        let name = name.as_ref().unwrap_or(&user.user_id);
        let dot = match user.status {
            Status::Idle => "🟡",
            Status::Busy => "🔴",
            _ if user.is_online() => "🟢",
            _ => "⚫",
        };
        let time = user.changed_at.get(11..19).unwrap_or_default();
        log::info(log::escape(&format!("{time}  {dot} {name} is {}", user.status)));
    }
}

/// The users to read again.
#[derive(Default)]
struct Stale {
    all: bool,
    users: BTreeSet<String>,
}

fn user(row: &Row) -> User {
    User {
        id: row.get(0),
        name: row.get(1),
        title: row.get(2),
        is_online: row.get(3),
        last_seen: row.get(4),
        sessions: row.get(5),
        status: row.get(6),
        status_text: row.get(7),
        emoji: row.get(8),
        status_expires_at: row.get(9),
    }
}

pub fn unix_time_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}
