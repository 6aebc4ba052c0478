//! Who is online: follows the statuses of the PostgreSQL extension pg_presence, and misses none.
//!
//! ```no_run
//! use pg_presence_client::{Event, Follower, Options};
//! use tokio_postgres::NoTls;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), tokio_postgres::Error> {
//! let config = "host=localhost user=app dbname=app".parse()?;
//! let mut follower = Follower::start(config, NoTls, Options::default());
//! loop {
//!     match follower.next().await {
//!         Event::Snapshot(users) => println!("{} users are known", users.len()),
//!         Event::Changed(users) => users.iter().for_each(|user| println!("{} is {}", user.user_id, user.status)),
//!         Event::Live => println!("{} are online", follower.online_users().len()),
//!         Event::Stale(error) => eprintln!("disconnected: {error}"),
//!         Event::Notified { .. } => {}
//!     }
//! }
//! # }
//! ```
//!
//! One connection both listens and reads. The order makes it lossless: first LISTEN, then the cursor, then the table,
//! then the notifications. What a notification leaves out is read from the change feed, and so is everything that
//! happened while the connection was down.

mod connection;
mod error;
mod feed;
mod user;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Config, Socket};

pub use error::Error;
pub use user::{Status, User};

use connection::Connection;
use feed::Feed;

/// What a [`Follower`] tells.
#[derive(Debug)]
pub enum Event {
    /// Everybody's status, at the start and whenever the feed does not reach back far enough. It replaces all that is
    /// known; users not in it are inactive.
    Snapshot(Vec<User>),
    /// Users whose status has changed, oldest change first.
    Changed(Vec<User>),
    /// What is known is right: the feed has been read to its end. After each connect, and every [`Options::interval`].
    Live,
    /// What is known may be out of date: the connection is lost, for this reason. It is being re-established, whatever
    /// the reason is, until the follower is dropped.
    Stale(Error),
    /// A notification on one of [`Options::channels`]. Notifications on these may be lost while the connection is down:
    /// read what they are about after each [`Event::Live`].
    Notified { channel: String, payload: String },
}

#[derive(Clone, Debug)]
pub struct Options {
    /// The schema of the extension.
    pub schema: String,
    /// Other channels to listen to on the same connection.
    pub channels: Vec<String>,
    /// How long the server may take to connect, or to answer a query, before the connection counts as lost. TCP reports
    /// a connection that was cut silently late, or, behind a proxy, never.
    pub timeout: Duration,
    /// How often the feed is read even if no notification arrives.
    pub interval: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            schema: "presence".to_owned(),
            channels: Vec::new(),
            timeout: Duration::from_secs(10),
            interval: Duration::from_secs(30),
        }
    }
}

/// Follows everybody's status in a task of its own, over one connection, until it is dropped. It reconnects by itself.
pub struct Follower {
    events: mpsc::Receiver<Event>,
    feed: Arc<Mutex<Feed>>,
    /// Aborts the task when it is dropped, which closes the connection.
    _task: JoinSet<()>,
}

impl Follower {
    /// Starts following. Has to be called within a runtime of tokio.
    ///
    /// The connection has to be a direct one: a pooler in transaction mode does not forward notifications.
    pub fn start<T>(config: Config, tls: T, options: Options) -> Follower
    where
        T: MakeTlsConnect<Socket, Stream: Send + 'static, TlsConnect: Send> + Clone + Send + Sync + 'static,
        <T::TlsConnect as tokio_postgres::tls::TlsConnect<Socket>>::Future: Send,
    {
        let (sender, events) = mpsc::channel(64);
        let feed = Arc::new(Mutex::new(Feed::default()));
        let connection = Connection::new(options, feed.clone(), sender);
        let mut task = JoinSet::new();
        task.spawn(connection.follow(config, tls));
        Follower {
            events,
            feed,
            _task: task,
        }
    }

    /// Waits for the next event. If it is cancelled, as in `tokio::select!`, no event is lost.
    pub async fn next(&mut self) -> Event {
        self.events
            .recv()
            .await
            .expect("a task that runs until this is dropped")
    }

    /// Returns the next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Returns a user's status as far as the feed has been read. Who is not known is inactive.
    pub fn status_of(&self, user_id: &str) -> Status {
        let feed = self.feed();
        feed.users.get(user_id).map_or(Status::Inactive, |user| user.status)
    }

    /// Returns those who are active as far as the feed has been read.
    pub fn online_users(&self) -> Vec<User> {
        let feed = self.feed();
        let online = feed.users.values().filter(|user| user.is_online());
        online.cloned().collect()
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
