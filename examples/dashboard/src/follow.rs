//! Everybody's presence as a stream of events that loses nothing. Copy this file:
//! it needs tokio, tokio-postgres, serde and serde_json, and nothing else of this program.
//!
//! One connection listens and reads. The order is what makes it lossless: LISTEN first,
//! then the cursor, then the table, then messages; whatever a message leaves out is read
//! from the feed, and so is everything that happened while the connection was down.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls, Notification};

/// How often to read the feed though nothing was heard.
pub const RECONCILE: Duration = Duration::from_secs(30);
/// How long a server may take to answer before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first and the longest pause between two attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Everybody's status, as after a start or when the feed does not reach back far
    /// enough: forget what you know. Who is not in it is inactive.
    Everybody(Vec<Change>),
    /// Users whose status has changed, oldest first.
    Changed(Vec<Change>),
    /// The feed was read to its end: after a connect, and every [`RECONCILE`] since.
    UpToDate,
    /// A notification on one of the other channels; after a cut, look at what they are about.
    Notified(String),
    /// The connection is gone, for this reason; it will be made again.
    Cut(String),
}

/// One user's new status.
#[derive(Clone, Debug, Deserialize)]
pub struct Change {
    pub seq: i64,
    pub user_id: String,
    pub status: String,
    /// When, in UTC, as ISO 8601 has it.
    pub at: String,
}

#[derive(Deserialize)]
struct Message {
    epoch: String,
    prev: i64,
    seq: i64,
    changes: Option<Vec<Change>>,
}

/// Follows the feed, and `channels` on the same connection, until nobody wants to know.
pub async fn follow(config: Config, channels: &[&str], events: mpsc::Sender<Event>) {
    let mut follower = Follower {
        epoch: None,
        seq: 0,
        users: HashMap::new(),
        events,
    };
    let mut pause = PAUSES.0;
    while !follower.events.is_closed() {
        let connected = Instant::now();
        let why = match follower.listen(&config, channels).await {
            Ok(()) => return,
            Err(error) => error.to_string(),
        };
        // A connection that held was good: begin again with short pauses.
        if connected.elapsed() > PAUSES.1 {
            pause = PAUSES.0;
        }
        follower.tell(Event::Cut(why)).await;
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

struct Follower {
    /// The line of sequence numbers we are on; none before the first snapshot.
    epoch: Option<String>,
    /// The last number seen.
    seq: i64,
    /// The number of each user's last change.
    users: HashMap<String, i64>,
    events: mpsc::Sender<Event>,
}

impl Follower {
    async fn tell(&self, event: Event) {
        // Nobody there any more: the loops above and below see that by themselves.
        let _ = self.events.send(event).await;
    }

    /// One connection's life. Returns when nobody wants to know, or with why it ended.
    async fn listen(&mut self, config: &Config, channels: &[&str]) -> Result<(), Failed> {
        let (client, mut connection) = timeout(PATIENCE, config.connect(NoTls)).await??;
        let (heard, mut notifications) = mpsc::unbounded_channel::<Notification>();
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = heard.send(notification);
                }
            }
        });
        let channel = timeout(PATIENCE, subscribe(&client, channels)).await??;
        timeout(PATIENCE, self.catch_up(&client)).await??;
        let mut reconcile = interval_at(Instant::now() + RECONCILE, RECONCILE);
        while !self.events.is_closed() {
            tokio::select! {
                notification = notifications.recv() => match notification {
                    None => return Err("the server has closed the connection".into()),
                    Some(other) if other.channel() != channel => {
                        self.tell(Event::Notified(other.channel().to_owned())).await;
                    }
                    Some(told) => if !self.apply(told.payload()).await {
                        timeout(PATIENCE, self.catch_up(&client)).await??;
                    }
                },
                _ = reconcile.tick() => timeout(PATIENCE, self.catch_up(&client)).await??,
            }
        }
        Ok(())
    }

    /// Applies a message; false where something before it, or in it, has to be read.
    /// So does what is no message of ours: anybody who may connect may notify.
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
        self.take(changes).await;
        self.seq = self.seq.max(message.seq);
        true
    }

    async fn take(&mut self, mut changes: Vec<Change>) {
        changes.retain(|change| {
            let known = self.users.entry(change.user_id.clone()).or_insert(0);
            let newer = change.seq > *known;
            *known = change.seq.max(*known);
            newer
        });
        if !changes.is_empty() {
            self.tell(Event::Changed(changes)).await;
        }
    }

    /// Reads what was missed.
    async fn catch_up(&mut self, client: &Client) -> Result<(), Error> {
        let since = format!("SELECT {COLUMNS} FROM presence.changes_since($1, $2)");
        while let Some(epoch) = &self.epoch {
            match client.query(&since, &[&self.seq, epoch]).await {
                Ok(rows) => {
                    let Some(last) = rows.last() else { break };
                    let seq = last.get(0);
                    // A forgotten user's change has no user left.
                    let rows = rows
                        .iter()
                        .filter(|row| row.get::<_, Option<&str>>(1).is_some());
                    self.take(rows.map(change).collect()).await;
                    self.seq = seq;
                }
                Err(error) if error.code() == Some(&SqlState::SNAPSHOT_TOO_OLD) => {
                    self.epoch = None
                }
                Err(error) => return Err(error),
            }
        }
        let cursor = "SELECT epoch, seq FROM presence.presence_cursor()";
        let cursor = client.query_one(cursor, &[]).await?;
        let (epoch, seq) = (cursor.get(0), cursor.get(1));
        // A number that there is not yet was a lie, and what comes before it would be missed.
        if self.epoch.is_none() || seq < self.seq {
            self.start_over(client, epoch, seq).await?;
        }
        self.tell(Event::UpToDate).await;
        Ok(())
    }

    /// The place in the feed is known before the users are read, so that none is missed.
    async fn start_over(&mut self, client: &Client, epoch: String, seq: i64) -> Result<(), Error> {
        let everybody = format!("SELECT {COLUMNS} FROM presence.user_presence");
        let everybody: Vec<_> = client
            .query(&everybody, &[])
            .await?
            .iter()
            .map(change)
            .collect();
        self.users = everybody
            .iter()
            .map(|user| (user.user_id.clone(), user.seq))
            .collect();
        self.seq = seq;
        self.epoch = Some(epoch);
        self.tell(Event::Everybody(everybody)).await;
        Ok(())
    }
}

/// Listens to the channel of presence, which it returns, and to some others.
async fn subscribe(client: &Client, channels: &[&str]) -> Result<String, Error> {
    let channel: String = client.query_one("SHOW presence.channel", &[]).await?.get(0);
    for channel in channels.iter().copied().chain([channel.as_str()]) {
        let quoted = channel.replace('"', "\"\"");
        let listen = format!("LISTEN \"{quoted}\"");
        client.batch_execute(&listen).await?;
    }
    Ok(channel)
}

/// What [`change`] is made of.
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
