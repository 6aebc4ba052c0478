//! The connection that listens and reads.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Notification, Row, Socket};

use crate::feed::Feed;
use crate::user::{COLUMNS, User};
use crate::{Error, Event, Options};

/// The pause between two attempts to connect doubles from the first of these to the second.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(200);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);

pub struct Connection {
    options: Options,
    feed: Arc<Mutex<Feed>>,
    events: mpsc::Sender<Event>,
    /// The pause before the next attempt to connect.
    delay: Duration,
}

impl Connection {
    pub fn new(options: Options, feed: Arc<Mutex<Feed>>, events: mpsc::Sender<Event>) -> Connection {
        Connection {
            options,
            feed,
            events,
            delay: MIN_RETRY_DELAY,
        }
    }

    /// Follows the feed until its task is aborted.
    pub async fn follow<T>(mut self, config: Config, tls: T)
    where
        T: MakeTlsConnect<Socket, Stream: Send + 'static> + Clone,
    {
        loop {
            let Err(error) = self.run(&config, tls.clone()).await;
            self.send(Event::Stale(error)).await;
            // Not all at the same moment when a server is back.
            sleep(self.delay.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            self.delay = (self.delay * 2).min(MAX_RETRY_DELAY);
        }
    }

    /// Connects and follows the feed, as long as the connection lasts.
    async fn run<T>(&mut self, config: &Config, tls: T) -> Result<Infallible, Error>
    where
        T: MakeTlsConnect<Socket, Stream: Send + 'static>,
    {
        let limit = self.options.timeout;
        let connected = timeout(limit, config.connect(tls)).await;
        let (client, mut connection) = connected.map_err(Error::no_answer(limit))??;
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
        let channel = self.listen(&client).await?;
        self.catch_up(&client).await?;
        let interval = self.options.interval;
        let mut interval = interval_at(Instant::now() + interval, interval);
        loop {
            tokio::select! {
                notification = notifications.recv() => {
                    let notification = notification.ok_or(Error::Closed)?;
                    self.take(&client, &channel, &notification).await?;
                }
                _ = interval.tick() => self.catch_up(&client).await?,
            }
            self.delay = MIN_RETRY_DELAY;
        }
    }

    /// Listens to the channel of pg_presence, whose name it returns, and to those of the options.
    async fn listen(&self, client: &Client) -> Result<String, Error> {
        let rows = self
            .query(client, "SELECT current_setting('presence.channel', true)", &[])
            .await?;
        let channel: Option<String> = rows.first().and_then(|row| row.get(0));
        let channel = channel.ok_or(Error::NotPreloaded)?;
        for channel in self.options.channels.iter().chain([&channel]) {
            self.query(client, &format!("LISTEN {}", quote(channel)), &[]).await?;
        }
        Ok(channel)
    }

    async fn take(&mut self, client: &Client, channel: &str, notification: &Notification) -> Result<(), Error> {
        let (from, payload) = (notification.channel(), notification.payload());
        if from != channel {
            let (channel, payload) = (from.to_owned(), payload.to_owned());
            self.send(Event::Notified { channel, payload }).await;
            return Ok(());
        }
        let changes = self.feed().apply(payload);
        match changes {
            Some(changes) => self.send_changes(changes).await,
            None => self.catch_up(client).await?,
        }
        Ok(())
    }

    /// Reads the changes since the last one known or, where that is not possible, everybody's status.
    async fn catch_up(&mut self, client: &Client) -> Result<(), Error> {
        let schema = quote(&self.options.schema);
        let since = format!("SELECT {COLUMNS} FROM {schema}.changes_since($1, $2)");
        loop {
            let (seq, epoch) = self.position();
            let Some(epoch) = epoch else { break };
            match self.query(client, &since, &[&seq, &epoch]).await {
                Ok(rows) => {
                    let Some(last) = rows.last() else { break };
                    let changes = {
                        let mut feed = self.feed();
                        feed.seq = last.get("seq");
                        feed.update(rows.iter().filter_map(User::of).collect())
                    };
                    self.send_changes(changes).await;
                }
                Err(Error::Postgres(error)) if error.code() == Some(&SqlState::SNAPSHOT_TOO_OLD) => {
                    self.feed().epoch = None;
                }
                Err(error) => return Err(error),
            }
        }
        let cursor = format!("SELECT epoch, seq FROM {schema}.presence_cursor()");
        let rows = self.query(client, &cursor, &[]).await?;
        let cursor = rows.first().ok_or(Error::Closed)?;
        let (epoch, seq): (String, i64) = (cursor.get(0), cursor.get(1));
        // A seq beyond the end of the feed came from a forged notification: changes up to it would be missed.
        let (known, known_epoch) = self.position();
        if known_epoch.as_ref() != Some(&epoch) || seq < known {
            // The cursor has been read before everybody's status, so that no change in between is missed.
            let rows = self
                .query(client, &format!("SELECT {COLUMNS} FROM {schema}.user_presence"), &[])
                .await?;
            let everybody: Vec<User> = rows.iter().filter_map(User::of).collect();
            self.feed().replace(epoch, seq, &everybody);
            self.send(Event::Snapshot(everybody)).await;
        }
        self.send(Event::Live).await;
        Ok(())
    }

    fn position(&self) -> (i64, Option<String>) {
        let feed = self.feed();
        (feed.seq, feed.epoch.clone())
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn query(&self, client: &Client, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let limit = self.options.timeout;
        let rows = timeout(limit, client.query(sql, params)).await;
        Ok(rows.map_err(Error::no_answer(limit))??)
    }

    async fn send_changes(&self, changes: Vec<User>) {
        if !changes.is_empty() {
            self.send(Event::Changed(changes)).await;
        }
    }

    async fn send(&self, event: Event) {
        // If the receiver is gone, this task is about to be aborted.
        let _ = self.events.send(event).await;
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quote(r#"a"b c"#), r#""a""b c""#);
    }
}
