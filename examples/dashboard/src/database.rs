//! The database as HTTP requests use it: each request runs in one transaction, with an ordinary role and the caller's
//! claims, as PostgREST does it. Nothing outlives the transaction, so connections can be shared, here and in a pooler.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};

use crate::error::Error;

const MAX_CONNECTIONS: usize = 8;

/// Whom a query runs as.
pub enum Caller<'a> {
    /// This program itself: it may read everybody's presence, and sign users in.
    Server,
    /// A caller who is not signed in, but may hold a session token.
    Anonymous,
    /// The user who signed in with this cookie.
    SignedIn(&'a str),
}

/// A small connection pool, filled on demand.
pub struct Database {
    config: Config,
    idle: Mutex<Vec<Client>>,
    permits: Arc<Semaphore>,
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
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// Runs one query as the caller, in a transaction of its own.
    pub async fn query(
        &self,
        caller: Caller<'_>,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let (mut client, _permit) = self.connection().await?;
        let transaction = client.transaction().await?;
        let identity = match caller {
            Caller::Server => None,
            Caller::Anonymous => Some(("anon", String::new())),
            Caller::SignedIn(cookie) => {
                let row = transaction
                    .query_one("SELECT app.user_of($1)::text", &[&cookie])
                    .await?;
                let user_id: Option<String> = row.get(0);
                let user_id = user_id.ok_or(Error::SignedOut)?;
                Some((
                    "authenticated",
                    json!({ "sub": user_id, "role": "authenticated" }).to_string(),
                ))
            }
        };
        if let Some((role, claims)) = identity {
            let act_as = "SELECT set_config('request.jwt.claims', $2, true), set_config('role', $1, true)";
            transaction.execute(act_as, &[&role, &claims]).await?;
        }
        let rows = transaction.query(sql, params).await?;
        transaction.commit().await?;
        // After an error the connection is closed instead, which rolls its transaction back.
        self.idle.lock().expect("a lock never poisoned").push(client);
        Ok(rows)
    }

    async fn connection(&self) -> Result<(Client, OwnedSemaphorePermit), Error> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.expect("a semaphore never closed");
        while let Some(client) = self.idle.lock().expect("a lock never poisoned").pop() {
            if !client.is_closed() {
                return Ok((client, permit));
            }
        }
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(async move {
            // Queries on the connection report its errors.
            let _ = connection.await;
        });
        Ok((client, permit))
    }
}
