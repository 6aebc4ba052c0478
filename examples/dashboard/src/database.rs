//! The database as the program's requests see it: each runs in one transaction, as an
//! ordinary role, with the claims of who asked. Nothing outlives the transaction, so
//! connections can be shared, and so would they be through a pooler.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};

use crate::failure::Failure;

const CONNECTIONS: usize = 8;

/// Who asks.
pub enum Caller<'a> {
    /// This program itself: it may read who is online, and sign people in.
    Gateway,
    /// Anybody who holds a session's token.
    Anonymous,
    /// Whoever signed in with this cookie.
    Member(&'a str),
}

/// A few connections, made when needed.
pub struct Database {
    config: Config,
    idle: Mutex<Vec<Client>>,
    places: Arc<Semaphore>,
}

impl Database {
    pub fn new(mut config: Config) -> Database {
        config
            .application_name("dashboard")
            .connect_timeout(Duration::from_secs(5))
            .options("-c statement_timeout=10s");
        Database {
            config,
            idle: Mutex::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// Runs one query for somebody, in a transaction of its own.
    pub async fn query(
        &self,
        caller: Caller<'_>,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let (mut client, _place) = self.connection().await?;
        let transaction = client.transaction().await?;
        let identity = match caller {
            Caller::Gateway => None,
            Caller::Anonymous => Some(("anon", String::new())),
            Caller::Member(cookie) => {
                let found = transaction
                    .query_one("SELECT app.user_of($1)::text", &[&cookie])
                    .await?;
                let user: Option<String> = found.get(0);
                let user = user.ok_or(Failure::SignedOut)?;
                Some((
                    "authenticated",
                    json!({ "sub": user, "role": "authenticated" }).to_string(),
                ))
            }
        };
        if let Some((role, claims)) = identity {
            let act_as =
                "SELECT set_config('request.jwt.claims', $2, true), set_config('role', $1, true)";
            transaction.execute(act_as, &[&role, &claims]).await?;
        }
        let rows = transaction.query(sql, params).await?;
        transaction.commit().await?;
        // One that failed on the way is not put back: its transaction is rolled back by its end.
        self.idle.lock().expect("no panic with it").push(client);
        Ok(rows)
    }

    async fn connection(&self) -> Result<(Client, OwnedSemaphorePermit), Failure> {
        let place = self.places.clone().acquire_owned().await;
        let place = place.expect("never closed");
        while let Some(client) = self.idle.lock().expect("no panic with it").pop() {
            if !client.is_closed() {
                return Ok((client, place));
            }
        }
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(async move {
            // What ends a connection is told to whoever uses it.
            let _ = connection.await;
        });
        Ok((client, place))
    }
}
