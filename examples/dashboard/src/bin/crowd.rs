//! Users who come and go, for there to be something to see: each signs in as the page
//! does, beats, and then logs out, closes the page, or is not heard from any more. The first
//! three are left to people in front of the page.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_presence_dashboard::database::{Caller, Database};
use pg_presence_dashboard::failure::Failure;
use tokio::time::sleep;

#[tokio::main]
async fn main() {
    let url = env::var("DATABASE_URL").expect("DATABASE_URL");
    let database = Arc::new(Database::new(
        url.parse().expect("the address of a database"),
    ));
    let everybody = loop {
        match database
            .query(
                Caller::Gateway,
                "SELECT id::text FROM app.users ORDER BY id OFFSET 3",
                &[],
            )
            .await
        {
            Ok(rows) => break rows,
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    };
    for user in everybody {
        let (database, user) = (database.clone(), user.get::<_, String>(0));
        tokio::spawn(async move {
            loop {
                sleep(seconds(2..20)).await;
                // Where the database is away, so are they.
                let _ = live(&database, &user).await;
            }
        });
    }
    std::future::pending::<()>().await;
}

/// One visit.
async fn live(database: &Database, user: &str) -> Result<(), Failure> {
    let rows = database
        .query(
            Caller::Gateway,
            "SELECT app.log_in($1::text::uuid)",
            &[&user],
        )
        .await?;
    let Some(cookie) = rows[0].get::<_, Option<String>>(0) else {
        // Removed: nobody to simulate. Somebody may be added by this name again.
        sleep(seconds(60..61)).await;
        return Ok(());
    };
    let member = || Caller::Member(&cookie);
    let start = "SELECT session_id::text, heartbeat_ms FROM presence.start_session(metadata => '{\"page\": \"simulated\"}')";
    let session = database.query(member(), start, &[]).await?;
    let (id, heartbeat_ms): (String, i32) = (session[0].get(0), session[0].get(1));
    let pause = Duration::from_millis(u64::try_from(heartbeat_ms).expect("no negative interval"));
    let until = Instant::now() + seconds(5..40);
    while Instant::now() < until {
        sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
        database
            .query(
                member(),
                "SELECT presence.heartbeat($1::text::uuid)",
                &[&id],
            )
            .await?;
    }
    let leave = match random() % 3 {
        0 => "SELECT presence.release_session($1::text::uuid, '3 s')",
        1 => return Ok(()),
        _ => "SELECT presence.end_session($1::text::uuid)",
    };
    database.query(member(), leave, &[&id]).await?;
    Ok(())
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

fn seconds(range: Range<u64>) -> Duration {
    Duration::from_millis(range.start * 1000 + random() % ((range.end - range.start) * 1000))
}
