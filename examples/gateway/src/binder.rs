//! The one connection that binds sessions, outside every pool: they are live as long as it is open, and when it ends,
//! however it ends, they have the grace to appear elsewhere. It is told in batches what has changed.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_postgres::error::Severity;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};
use uuid::Uuid;

use crate::outbox::Farewell;
use crate::sessions::{Arrival, Sessions};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How long changes are collected for one call.
const BATCH_PAUSE: Duration = Duration::from_millis(5);
/// The sessions in one call.
const MAX_BATCH: usize = 5000;
/// How long the server may take to answer, before the connection counts as lost.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two attempts to connect doubles from the first of these to the second.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(200);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);

/// A row for each position: session and user, or null if the token is of no session that could be resumed.
const START: &str = "SELECT session_id, user_id FROM presence.start_sessions(session_tokens => $1, user_keys => $2)";
const FIND: &str = "SELECT s.id, s.user_id FROM unnest($1::text[]) WITH ORDINALITY AS t(token, position)
    LEFT JOIN presence.user_sessions s ON s.session_token = presence.token_digest(t.token) AND s.ended_at IS NULL
    ORDER BY t.position";
/// These three return the sessions for which they did nothing.
const BIND: &str = "SELECT unnest(presence.bind_sessions($1, make_interval(secs => $2)))";
const ACTIVE: &str = "SELECT unnest(presence.heartbeat_many($1))";
const IDLE: &str = "SELECT id FROM unnest($1::uuid[]) AS id WHERE presence.heartbeat_idle(id) <> 'ok'";
const END: &str = "SELECT presence.end_sessions($1)";
const RELEASE: &str = "SELECT presence.release_sessions($1, make_interval(secs => $2))";

struct Binder {
    sessions: Arc<Sessions>,
    /// In seconds.
    grace: f64,
    client: Client,
    /// Aborted when it is dropped: the task of a connection that is cut would wait for an answer for ever.
    connection: JoinSet<std::result::Result<(), tokio_postgres::Error>>,
    start: Statement,
    find: Statement,
    bind: Statement,
    active: Statement,
    idle: Statement,
    end: Statement,
    release: Statement,
}

/// Keeps the sessions bound, over one connection after the other.
pub async fn bind(sessions: Arc<Sessions>, config: Config, grace: Duration) -> Infallible {
    let mut delay = MIN_RETRY_DELAY;
    loop {
        let error = match timeout(TIMEOUT, Binder::connect(&sessions, &config, grace)).await {
            Ok(Ok(mut binder)) => {
                let Err(error) = binder.run(&mut delay).await;
                error
            }
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        eprintln!("disconnected: {}", reason(&*error));
        sessions.lost();
        // Not all gateways at the same moment when a server is back.
        sleep(delay.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        delay = (delay * 2).min(MAX_RETRY_DELAY);
    }
}

impl Binder {
    async fn connect(sessions: &Arc<Sessions>, config: &Config, grace: Duration) -> Result<Binder> {
        let (client, connection) = config.connect(NoTls).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Ok(Binder {
            sessions: sessions.clone(),
            grace: grace.as_secs_f64(),
            start: client.prepare(START).await?,
            find: client.prepare(FIND).await?,
            bind: client.prepare(BIND).await?,
            active: client.prepare(ACTIVE).await?,
            idle: client.prepare(IDLE).await?,
            end: client.prepare(END).await?,
            release: client.prepare(RELEASE).await?,
            client,
            connection: tasks,
        })
    }

    /// Tells the database what changes, as long as the connection lasts.
    async fn run(&mut self, retry_delay: &mut Duration) -> Result<Infallible> {
        let sql = "SELECT extract(epoch FROM current_setting('presence.heartbeat_interval')::interval)::float8";
        let seconds: f64 = self.client.query_one(sql, &[]).await?.get(0);
        let interval = Duration::from_secs_f64(seconds);
        let mut heartbeats = interval_at(Instant::now() + interval, interval);
        // Before a session that another gateway has released is gone.
        let interval = Duration::from_secs_f64(self.grace / 3.0);
        let mut bindings = interval_at(Instant::now() + interval, interval);
        while self.tell().await? {}
        *retry_delay = MIN_RETRY_DELAY;
        println!("connected: {} sessions are bound", self.sessions.count());
        loop {
            tokio::select! {
                () = self.sessions.changed() => sleep(BATCH_PAUSE).await,
                _ = heartbeats.tick() => self.sessions.retry(),
                _ = bindings.tick() => self.sessions.bind_again(),
                end = self.connection.join_next() => {
                    end.transpose()?.transpose()?;
                    return Err("the server closed the connection".into());
                }
            }
            while self.tell().await? {}
        }
    }

    /// Tells one batch; returns whether there is more to tell.
    async fn tell(&self) -> Result<bool> {
        let batch = self.sessions.take_batch(MAX_BATCH);
        let unbound = ids(&self.call(&self.bind, &batch.bind, &[&self.grace]).await?);
        // To one for which memory has no room, this is a heartbeat. One that is refused has ended.
        for (statement, sessions) in [(&self.active, &batch.active), (&self.idle, &batch.idle)] {
            self.sessions.ended(&ids(&self.call(statement, sessions, &[]).await?));
        }
        self.sessions.welcome(&batch.bind, &unbound.into_iter().collect());
        self.call(&self.end, &batch.end, &[]).await?;
        self.sessions.ended(&batch.end);
        self.call(&self.release, &batch.release, &[&self.grace]).await?;

        let arrivals = self.sessions.take_arrivals(MAX_BATCH);
        let is_full = batch.is_full(MAX_BATCH) || arrivals.len() == MAX_BATCH;
        let (new, old) = arrivals.into_iter().partition(|arrival| arrival.user_key.is_some());
        // Both, also if one fails, so that each puts its arrivals back.
        let (old, new) = (self.admit(&self.find, old).await, self.admit(&self.start, new).await);
        old.and(new)?;
        Ok(is_full)
    }

    /// Starts or finds the sessions of new sockets. What the database refuses of one closes that one.
    async fn admit(&self, statement: &Statement, arrivals: Vec<Arrival>) -> Result<()> {
        let mut groups = vec![arrivals];
        while let Some(mut arrivals) = groups.pop() {
            let tokens: Vec<&str> = arrivals.iter().map(|arrival| &*arrival.token).collect();
            let keys: Vec<&str> = arrivals
                .iter()
                .filter_map(|arrival| arrival.user_key.as_deref())
                .collect();
            let keys: &[&(dyn ToSql + Sync)] = if keys.is_empty() { &[] } else { &[&keys] };
            match self.call(statement, &tokens, keys).await {
                Ok(rows) => {
                    for (arrival, row) in arrivals.into_iter().zip(rows) {
                        let session: Option<Uuid> = row.get(0);
                        self.sessions.admit(arrival, session.zip(row.get(1)));
                    }
                }
                Err(error) if !is_refusal(&*error) || self.client.is_closed() => {
                    self.sessions.put_back(arrivals);
                    groups.into_iter().for_each(|group| self.sessions.put_back(group));
                    return Err(error);
                }
                Err(error) => match arrivals.len() {
                    1 => {
                        eprintln!("could not start or find a session: {}", reason(&*error));
                        let refused = arrivals.into_iter();
                        refused.for_each(|arrival| arrival.turn_away(Farewell::Refused));
                    }
                    count => groups.extend([arrivals.split_off(count / 2), arrivals]),
                },
            }
        }
        Ok(())
    }

    /// Runs a statement whose first parameter is a list, unless that is empty.
    async fn call(
        &self,
        statement: &Statement,
        list: &[impl ToSql + Sync],
        more: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        if list.is_empty() {
            return Ok(Vec::new());
        }
        let list: &(dyn ToSql + Sync) = &list;
        let rows = timeout(TIMEOUT, self.client.query(statement, &[&[list], more].concat())).await;
        Ok(rows??)
    }
}

/// The database's message, without the detail, which may be about rows.
fn reason(error: &(dyn Error + Send + Sync + 'static)) -> String {
    let of_database = error
        .downcast_ref::<tokio_postgres::Error>()
        .and_then(tokio_postgres::Error::as_db_error);
    of_database.map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// Whether the database has answered that it will not, and goes on.
fn is_refusal(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    let error = error.downcast_ref::<tokio_postgres::Error>();
    let of_database = error.and_then(tokio_postgres::Error::as_db_error);
    of_database.is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

fn ids(rows: &[Row]) -> Vec<Uuid> {
    rows.iter().map(|row| row.get(0)).collect()
}
