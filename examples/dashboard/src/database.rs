//! The database as HTTP requests use it: each request runs in one transaction, with an ordinary role and the caller's
//! claims, as PostgREST does it. Nothing outlives the transaction, so connections can be shared, here and in a pooler.

use std::time::Duration;

use deadpool_postgres::{Client, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use serde_json::json;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Row};

use crate::connect::Tls;
use crate::error::Error;

const MAX_CONNECTIONS: usize = 8;
/// How long a request waits for a connection: for one that is idle, and for a new one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may work on a statement, and how long a request waits for the whole transaction. The second is
/// for a server that does not answer at all, so it is longer.
const STATEMENT_TIMEOUT: &str = "SET LOCAL statement_timeout = '8s'";
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Whom a query runs as.
pub enum Caller<'a> {
    /// This program itself: it may read everybody's presence, and sign users in.
    Server,
    /// A caller who is not signed in, but may hold a session token.
    Anonymous,
    /// The user who signed in with this cookie.
    SignedIn(&'a str),
    /// The user with this id, who is known to have been signed in.
    User(&'a str),
}

/// A small connection pool, filled on demand.
pub struct Database {
    pool: Pool,
}

impl Database {
    pub fn new(mut config: Config) -> Database {
        if config.get_application_name().is_none() {
            config.application_name("dashboard");
        }
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let pool = Pool::builder(Manager::from_config(config, Tls::verified(), recycling))
            .runtime(Runtime::Tokio1)
            .max_size(MAX_CONNECTIONS)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .expect("a runtime for the timeouts");
        Database { pool }
    }

    /// Runs one query as the caller, in a transaction of its own.
    pub async fn query(
        &self,
        caller: Caller<'_>,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let mut client = self.pool.get().await?;
        let transaction = timeout(TRANSACTION_TIMEOUT, query(&mut client, caller, sql, params));
        transaction.await.unwrap_or_else(|_| {
            // This connection is cut, and those that are idle may be, too: close them all.
            drop(Object::take(client));
            self.pool.retain(|_, _| false);
            Err(Error::NoAnswer)
        })
    }
}

/// After an error the transaction is rolled back, and the connection stays in the pool: a request that is refused costs
/// no new one.
async fn query(
    client: &mut Client,
    caller: Caller<'_>,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Error> {
    let transaction = client.transaction().await?;
    // Not an option of the connection, which poolers refuse.
    transaction.batch_execute(STATEMENT_TIMEOUT).await?;
    let identity = match caller {
        Caller::Server => None,
        Caller::Anonymous => Some(("anon", String::new())),
        Caller::SignedIn(cookie) => {
            let row = transaction
                .query_one("SELECT app.user_of($1)::text", &[&cookie])
                .await?;
            let user_id: Option<String> = row.get(0);
            Some(("authenticated", claims(&user_id.ok_or(Error::SignedOut)?)))
        }
        Caller::User(user_id) => Some(("authenticated", claims(user_id))),
    };
    if let Some((role, claims)) = identity {
        let act_as = "SELECT set_config('request.jwt.claims', $2, true), set_config('role', $1, true)";
        transaction.execute(act_as, &[&role, &claims]).await?;
    }
    let rows = transaction.query(sql, params).await?;
    transaction.commit().await?;
    Ok(rows)
}

fn claims(user_id: &str) -> String {
    json!({ "sub": user_id, "role": "authenticated" }).to_string()
}
