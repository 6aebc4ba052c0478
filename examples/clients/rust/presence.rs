//! A client in Rust: `cargo run -p pg_presence_dashboard --example presence`, with the
//! database in DATABASE_URL. The loop that loses nothing is a file to copy: `follow.rs`
//! of the dashboard.

use std::env;
use std::pin::pin;
use std::time::Duration;

use pg_presence_dashboard::follow::{Change, Event, follow};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::sleep;
use tokio_postgres::{Config, NoTls};

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let config: Config = env::var("DATABASE_URL")?.parse()?;
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);

    let (told, mut events) = mpsc::channel(64);
    tokio::spawn(async move { follow(config, &[], told).await });
    let me = "SELECT presence.presence_id('rust')::text";
    let me: String = client.query_one(me, &[]).await?.get(0);

    let start =
        "SELECT session_id::text, heartbeat_ms FROM presence.start_session(user_key => 'rust')";
    let session = client.query_one(start, &[]).await?;
    let (id, heartbeat_ms): (String, i32) = (session.get(0), session.get(1));
    let every = Duration::from_millis(heartbeat_ms.try_into()?);
    {
        let mut is_told = pin!(until(&mut events, &me, "active"));
        loop {
            let beat = "SELECT presence.heartbeat($1::text::uuid)";
            let beat = client.query_one(beat, &[&id]).await?;
            println!("heartbeat: {}", beat.get::<_, &str>(0));
            tokio::select! {
                () = sleep(every) => {}
                () = &mut is_told => break,
            }
        }
    }

    let list =
        "SELECT key, presence.is_online(presence.presence_id(key)) FROM unnest($1::text[]) key";
    for row in client
        .query(list, &[&["rust", "nobody"].as_slice()])
        .await?
    {
        let word = if row.get(1) { "online" } else { "offline" };
        println!("{}: {word}", row.get::<_, &str>(0));
    }

    client
        .execute("SELECT presence.end_session($1::text::uuid)", &[&id])
        .await?;
    until(&mut events, &me, "inactive").await;
    Ok(())
}

/// Follows the events until somebody has a status.
async fn until(events: &mut Receiver<Event>, user: &str, status: &str) {
    while let Some(event) = events.recv().await {
        let changes: Vec<Change> = match event {
            Event::Everybody(changes) | Event::Changed(changes) => changes,
            Event::Cut(why) => {
                eprintln!("disconnected: {why}");
                continue;
            }
            Event::UpToDate | Event::Notified(_) => continue,
        };
        for change in changes.iter().filter(|change| change.user_id == user) {
            println!("told: {}", change.status);
            if change.status == status {
                return;
            }
        }
    }
}
