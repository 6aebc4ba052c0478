//! What browsers see: the users, with their presence, kept in memory for all of them.
//! However many browsers look, the database is asked once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};
use tokio::time::sleep;
use tokio_postgres::Row;

use crate::database::{Caller, Database};
use crate::failure::Failure;
use crate::follow::{Change, Event};

/// What a browser that has fallen behind may leave unread before it is told everything anew.
const BACKLOG: usize = 256;
const COLUMNS: &str = "u.id::text, u.name, u.title, p.is_online,
    (extract(epoch FROM p.last_seen) * 1000)::bigint AS last_seen, p.session_count::bigint AS sessions";

/// One row of the page.
#[derive(Clone, PartialEq, Serialize)]
struct User {
    id: String,
    name: String,
    title: String,
    is_online: bool,
    /// In milliseconds since 1970; none for who was never here.
    last_seen: Option<i64>,
    sessions: i64,
}

/// One server-sent event.
#[derive(Clone)]
pub struct Frame {
    pub name: &'static str,
    pub data: Arc<str>,
}

impl Frame {
    fn new(name: &'static str, data: &impl Serialize) -> Frame {
        let data = serde_json::to_string(data).expect("what we made ourselves");
        Frame {
            name,
            data: data.into(),
        }
    }
}

pub struct Board {
    database: Arc<Database>,
    shown: Mutex<Shown>,
    frames: broadcast::Sender<Frame>,
    looks: mpsc::UnboundedSender<String>,
}

#[derive(Default)]
struct Shown {
    users: BTreeMap<String, User>,
    /// Whether we hear of changes.
    is_following: bool,
    /// Whether what is shown is known to be the truth.
    is_live: bool,
}

impl Shown {
    fn everything(&self) -> Frame {
        let users: Vec<_> = self.users.values().collect();
        Frame::new("users", &json!({ "users": users, "is_live": self.is_live }))
    }
}

impl Board {
    /// A board that is kept up to date by these events for as long as they come.
    pub fn start(database: Arc<Database>, events: mpsc::Receiver<Event>) -> Arc<Board> {
        let (looks, asked) = mpsc::unbounded_channel();
        let board = Arc::new(Board {
            database,
            shown: Mutex::default(),
            frames: broadcast::Sender::new(BACKLOG),
            looks,
        });
        tokio::spawn(board.clone().keep(events, asked));
        board
    }

    /// Everything there is to show now, and whatever changes from here on.
    pub fn watch(&self) -> (Frame, broadcast::Receiver<Frame>) {
        let shown = self.shown();
        (shown.everything(), self.frames.subscribe())
    }

    /// Has another look at one user: a second session is no change of status, but shown.
    pub fn look_again(&self, user: String) {
        let _ = self.looks.send(user);
    }

    async fn keep(
        self: Arc<Board>,
        mut events: mpsc::Receiver<Event>,
        mut asked: mpsc::UnboundedReceiver<String>,
    ) {
        loop {
            let mut wanted = Wanted::default();
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.hear(event, &mut wanted),
                    None => return,
                },
                user = asked.recv() => wanted.users.extend(user),
            }
            // What has come meanwhile is looked at with the same query.
            while let Ok(event) = events.try_recv() {
                self.hear(event, &mut wanted);
            }
            while let Ok(user) = asked.try_recv() {
                wanted.users.insert(user);
            }
            while let Err(failure) = self.look(&mut wanted).await {
                eprintln!("error: the users cannot be read: {failure:?}");
                self.cut();
                wanted.everybody = true;
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// A change says when to look and at whom; what is shown is what is then read.
    fn hear(&self, event: Event, wanted: &mut Wanted) {
        self.shown().is_following = !matches!(event, Event::Cut(_));
        match event {
            Event::Everybody(users) => {
                let online = users.iter().filter(|user| user.status == "active").count();
                match users.len() {
                    0 => println!("          nobody has signed in yet"),
                    all => println!("          {online} of {all} users are active"),
                }
                wanted.everybody = true;
            }
            // Whatever was told on another channel, it is about the table of users.
            Event::Notified(_) | Event::UpToDate => wanted.everybody = true,
            Event::Changed(changes) => {
                for change in changes {
                    self.log(&change);
                    wanted.users.insert(change.user_id);
                }
            }
            Event::Cut(why) => {
                eprintln!("error: no connection to the database: {why}");
                *wanted = Wanted::default();
                self.cut();
            }
        }
    }

    async fn look(&self, wanted: &mut Wanted) -> Result<(), Failure> {
        if wanted.everybody {
            let sql = format!(
                "SELECT {COLUMNS} FROM app.users u
                 JOIN presence.presence_of(ARRAY(SELECT id FROM app.users)) p ON p.user_id = u.id"
            );
            let rows = self.database.query(Caller::Gateway, &sql, &[]).await?;
            let mut shown = self.shown();
            shown.users = rows
                .iter()
                .map(user)
                .map(|user| (user.id.clone(), user))
                .collect();
            shown.is_live = shown.is_following;
            let _ = self.frames.send(shown.everything());
            return Ok(());
        }
        // Whoever is not shown is none of our users. A new one is told of by the table, too.
        wanted
            .users
            .retain(|id| self.shown().users.contains_key(id));
        if !wanted.users.is_empty() {
            let ids: Vec<_> = wanted.users.iter().collect();
            let sql = format!(
                "SELECT {COLUMNS} FROM presence.presence_of($1::text[]::uuid[]) p JOIN app.users u ON u.id = p.user_id"
            );
            let rows = self.database.query(Caller::Gateway, &sql, &[&ids]).await?;
            let mut shown = self.shown();
            for user in rows.iter().map(user) {
                if shown.users.get(&user.id) != Some(&user) {
                    let _ = self.frames.send(Frame::new("user", &user));
                    shown.users.insert(user.id.clone(), user);
                }
            }
        }
        Ok(())
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().expect("no panic with it")
    }

    /// Says that what is shown may be old.
    fn cut(&self) {
        let mut shown = self.shown();
        if std::mem::take(&mut shown.is_live) {
            let _ = self.frames.send(Frame::new("cut", &json!({})));
        }
    }

    fn log(&self, change: &Change) {
        let shown = self.shown();
        let name = shown
            .users
            .get(&change.user_id)
            .map_or(change.user_id.as_str(), |user| &user.name);
        let dot = if change.status == "active" {
            "🟢"
        } else {
            "⚫"
        };
        println!(
            "{}  {dot} {name} is {}",
            change.at.get(11..19).unwrap_or_default(),
            change.status
        );
    }
}

/// What has to be read.
#[derive(Default)]
struct Wanted {
    everybody: bool,
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
    }
}
