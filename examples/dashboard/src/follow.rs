//! Follows everybody's status as a stream of events that loses no change. This file is meant to be copied: it needs
//! tokio, tokio-postgres, serde and serde_json, and nothing else of this program.
//!
//! One connection both listens and reads. The order makes it lossless: first LISTEN, then the cursor, then the table,
//! then the notifications. What a notification leaves out is read from the change feed, and so is everything that
//! happened while the connection was down.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Error, Notification, Socket};

/// How often the feed is read even if no notification arrives.
pub const CATCH_UP_INTERVAL: Duration = Duration::from_secs(30);
/// How long the server may take to connect, or to answer a query, before the connection counts as lost. TCP reports a
/// connection that was cut silently late, or, behind a proxy, never.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two attempts to connect doubles from the first of these to the second.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(200);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub enum Event {
    /// Everybody's status, sent at the start and whenever the feed does not reach back far enough. It replaces all
    /// that is known; users not in it are inactive.
    Snapshot(Vec<Change>),
    /// Users whose status has changed, oldest change first.
    Changed(Vec<Change>),
    /// The feed has been read to its end: after each connect, and every [`CATCH_UP_INTERVAL`].
    UpToDate,
    /// A notification on one of the other channels. Notifications on these may be lost while the connection is down:
    /// read what they are about after each [`Event::UpToDate`].
    Notified { channel: String, payload: String },
    /// The connection is lost, for this reason; it is being re-established.
    Disconnected(String),
}

/// One user's new status.
#[derive(Clone, Debug, Deserialize)]
pub struct Change {
    pub seq: i64,
    pub user_id: String,
    pub status: String,
    /// When it changed, in UTC, as ISO 8601.
    pub at: String,
}

#[derive(Deserialize)]
struct Message {
    epoch: String,
    prev: i64,
    seq: i64,
    changes: Option<Vec<Change>>,
}

/// Follows the feed, and listens to `channels` on the same connection, until the receiver of the events is dropped.
pub async fn follow<T>(config: Config, tls: T, channels: &[&str], events: mpsc::Sender<Event>)
where
    T: MakeTlsConnect<Socket, Stream: Send + 'static> + Clone,
{
    let mut follower = Follower {
        epoch: None,
        seq: 0,
        users: HashMap::new(),
        events,
    };
    let mut delay = MIN_RETRY_DELAY;
    while !follower.events.is_closed() {
        let started = Instant::now();
        let reason = match follower.run(&config, tls.clone(), channels).await {
            Ok(()) => return,
            Err(error) => error.to_string(),
        };
        // The connection had been working: start again with short delays.
        if started.elapsed() > MAX_RETRY_DELAY {
            delay = MIN_RETRY_DELAY;
        }
        follower.send(Event::Disconnected(reason)).await;
        sleep(delay).await;
        delay = (delay * 2).min(MAX_RETRY_DELAY);
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

struct Follower {
    /// The epoch that `seq` belongs to; `None` before the first snapshot.
    epoch: Option<String>,
    /// The sequence number up to which the feed has been followed.
    seq: i64,
    /// The sequence number of each user's last change.
    users: HashMap<String, i64>,
    events: mpsc::Sender<Event>,
}

impl Follower {
    async fn send(&self, event: Event) {
        // If the receiver is gone, the loops of `follow` and `run` end.
        let _ = self.events.send(event).await;
    }

    /// Connects and follows the feed. Returns `Ok` when the receiver of the events is gone, and an error when the
    /// connection is.
    async fn run<T>(&mut self, config: &Config, tls: T, channels: &[&str]) -> Result<(), BoxError>
    where
        T: MakeTlsConnect<Socket, Stream: Send + 'static>,
    {
        let (client, mut connection) = timeout(RESPONSE_TIMEOUT, config.connect(tls)).await??;
        let (sender, mut notifications) = mpsc::unbounded_channel::<Notification>();
        // Aborts its task when it is dropped; the task of a connection that is cut would wait for an answer for ever.
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = sender.send(notification);
                }
            }
        });
        let channel = timeout(RESPONSE_TIMEOUT, listen(&client, channels)).await??;
        self.catch_up(&client).await?;
        let mut interval = interval_at(Instant::now() + CATCH_UP_INTERVAL, CATCH_UP_INTERVAL);
        while !self.events.is_closed() {
            tokio::select! {
                notification = notifications.recv() => match notification {
                    None => return Err("the server closed the connection".into()),
                    Some(other) if other.channel() != channel => {
                        let (channel, payload) = (other.channel().to_owned(), other.payload().to_owned());
                        self.send(Event::Notified { channel, payload }).await;
                    }
                    Some(notification) => if !self.apply(notification.payload()).await {
                        self.catch_up(&client).await?;
                    }
                },
                _ = interval.tick() => self.catch_up(&client).await?,
            }
        }
        Ok(())
    }

    /// Applies a notification. Returns false if the feed has to be read instead: changes are missing before it or in
    /// it, or it is not one of pg_presence's, as anybody who can connect can NOTIFY.
    async fn apply(&mut self, payload: &str) -> bool {
        let Ok(message) = serde_json::from_str::<Message>(payload) else {
            return false;
        };
        let Some(changes) = message.changes else {
            return false;
        };
        let is_next = self.epoch.as_ref() == Some(&message.epoch) && message.prev <= self.seq;
        if !is_next || changes.iter().any(|change| change.seq > message.seq) {
            return false;
        }
        self.apply_changes(changes).await;
        self.seq = self.seq.max(message.seq);
        true
    }

    /// Sends the changes that are newer than what is known of their users.
    async fn apply_changes(&mut self, mut changes: Vec<Change>) {
        changes.retain(|change| {
            let known = self.users.entry(change.user_id.clone()).or_insert(0);
            let is_newer = change.seq > *known;
            *known = change.seq.max(*known);
            is_newer
        });
        if !changes.is_empty() {
            self.send(Event::Changed(changes)).await;
        }
    }

    /// Reads the changes since the last one known or, where that is not possible, everybody's status.
    async fn catch_up(&mut self, client: &Client) -> Result<(), BoxError> {
        let since = format!("SELECT {COLUMNS} FROM presence.changes_since($1, $2)");
        while let Some(epoch) = &self.epoch {
            match timeout(RESPONSE_TIMEOUT, client.query(&since, &[&self.seq, epoch])).await? {
                Ok(rows) => {
                    let Some(last) = rows.last() else { break };
                    let seq = last.get(0);
                    // Changes of forgotten users have no user_id.
                    let rows = rows.iter().filter(|row| row.get::<_, Option<&str>>(1).is_some());
                    self.apply_changes(rows.map(change).collect()).await;
                    self.seq = seq;
                }
                Err(error) if error.code() == Some(&SqlState::SNAPSHOT_TOO_OLD) => self.epoch = None,
                Err(error) => return Err(error.into()),
            }
        }
        let cursor = "SELECT epoch, seq FROM presence.presence_cursor()";
        let cursor = timeout(RESPONSE_TIMEOUT, client.query_one(cursor, &[])).await??;
        let (epoch, seq) = (cursor.get(0), cursor.get(1));
        // A seq beyond the end of the feed came from a forged notification: changes up to it would be missed.
        if self.epoch.is_none() || seq < self.seq {
            self.start_over(client, epoch, seq).await?;
        }
        self.send(Event::UpToDate).await;
        Ok(())
    }

    /// Reads everybody's status. The cursor has been read before that, so that no change in between is missed.
    async fn start_over(&mut self, client: &Client, epoch: String, seq: i64) -> Result<(), BoxError> {
        let everybody = format!("SELECT {COLUMNS} FROM presence.user_presence");
        let everybody = timeout(RESPONSE_TIMEOUT, client.query(&everybody, &[])).await??;
        let everybody: Vec<_> = everybody.iter().map(change).collect();
        self.users = everybody.iter().map(|user| (user.user_id.clone(), user.seq)).collect();
        self.seq = seq;
        self.epoch = Some(epoch);
        self.send(Event::Snapshot(everybody)).await;
        Ok(())
    }
}

/// Listens to the channel of pg_presence and to `channels`; returns the name of the former.
async fn listen(client: &Client, channels: &[&str]) -> Result<String, Error> {
    let channel: String = client.query_one("SHOW presence.channel", &[]).await?.get(0);
    for channel in channels.iter().copied().chain([channel.as_str()]) {
        let quoted = channel.replace('"', "\"\"");
        let listen = format!("LISTEN \"{quoted}\"");
        client.batch_execute(&listen).await?;
    }
    Ok(channel)
}

/// The columns that [`change`] reads.
const COLUMNS: &str = r#"seq, user_id::text, status::text,
    to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#;

fn change(row: &tokio_postgres::Row) -> Change {
    Change {
        seq: row.get(0),
        user_id: row.get(1),
        status: row.get(2),
        at: row.get(3),
    }
}
