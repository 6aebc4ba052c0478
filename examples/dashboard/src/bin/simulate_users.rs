//! Simulates users who come and go, so that the page has something to show: each signs in as the page does, sends
//! heartbeats, may declare what it is doing, and then logs out, closes the page, or falls silent.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_presence_dashboard::connect::parse;
use pg_presence_dashboard::database::{Caller, Database};
use pg_presence_dashboard::error::Error;
use tokio::time::sleep;

#[tokio::main]
async fn main() {
    let url = env::var("DATABASE_URL").expect("DATABASE_URL");
    let database = Arc::new(Database::new(parse(&url).expect("a connection string")));
    let users = loop {
        match database
            .query(Caller::Server, "SELECT id::text FROM app.users WHERE is_simulated", &[])
            .await
        {
            Ok(rows) => break rows,
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    };
    for user in users {
        let (database, user_id) = (database.clone(), user.get::<_, String>(0));
        tokio::spawn(async move {
            loop {
                sleep(seconds(2..20)).await;
                // While the database cannot be reached, the user is away.
                let _ = visit(&database, &user_id).await;
            }
        });
    }
    std::future::pending::<()>().await;
}

/// One visit of a user, from the login to the end of the session.
async fn visit(database: &Database, user_id: &str) -> Result<(), Error> {
    let rows = database
        .query(Caller::Server, "SELECT app.log_in($1::text::uuid)", &[&user_id])
        .await?;
    let Some(cookie) = rows[0].get::<_, Option<String>>(0) else {
        // The user was removed, and might be added again with the same id.
        sleep(seconds(60..61)).await;
        return Ok(());
    };
    let caller = || Caller::SignedIn(&cookie);
    let start =
        "SELECT session_id::text, heartbeat_ms FROM presence.start_session(metadata => '{\"page\": \"simulated\"}')";
    let session = database.query(caller(), start, &[]).await?;
    let (session_id, heartbeat_ms): (String, i32) = (session[0].get(0), session[0].get(1));
    let declare = match random() % 6 {
        0 => Some("SELECT presence.set_status('busy', 'In a meeting', '📅', '15 s')"),
        1 => Some("SELECT presence.set_status('away', 'Getting a coffee', '☕', '15 s')"),
        _ => None,
    };
    if let Some(declare) = declare {
        database.query(caller(), declare, &[]).await?;
    }
    let interval = Duration::from_millis(u64::try_from(heartbeat_ms).expect("a positive interval"));
    let end = Instant::now() + seconds(5..40);
    while Instant::now() < end {
        sleep(interval.min(end.saturating_duration_since(Instant::now()))).await;
        database
            .query(caller(), "SELECT presence.heartbeat($1::text::uuid)", &[&session_id])
            .await?;
    }
    let leave = match random() % 3 {
        0 => "SELECT presence.release_session($1::text::uuid, '3 s')",
        1 => return Ok(()),
        _ => "SELECT presence.end_session($1::text::uuid)",
    };
    database.query(caller(), leave, &[&session_id]).await?;
    Ok(())
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Returns a random duration within a range of seconds.
fn seconds(range: Range<u64>) -> Duration {
    Duration::from_millis(range.start * 1000 + random() % ((range.end - range.start) * 1000))
}
