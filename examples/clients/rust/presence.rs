//! A client in Rust: `cargo run -p pg_presence_dashboard --example presence`, with the connection string in
//! DATABASE_URL. The lossless loop is in a file of its own, to be copied: the dashboard's `follow.rs`.

use std::env;
use std::pin::pin;
use std::time::Duration;

use pg_presence_dashboard::connect::{Tls, parse};
use pg_presence_dashboard::follow::{Change, Event, follow};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::sleep;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = env::var("DATABASE_URL")
        .map_err(|_| "DATABASE_URL is not set: set it to something like postgresql://app:password@localhost/app")?;
    let config = parse(&url)?;
    let (client, connection) = config.connect(Tls::verified()).await?;
    tokio::spawn(connection);

    let (sender, mut events) = mpsc::channel(64);
    tokio::spawn(async move { follow(config, Tls::verified(), &[], sender).await });
    let user_id = "SELECT presence.presence_id('rust')::text";
    let user_id: String = client.query_one(user_id, &[]).await?.get(0);

    let start = "SELECT session_id::text, heartbeat_ms FROM presence.start_session(user_key => 'rust')";
    let session = client.query_one(start, &[]).await?;
    let (session_id, heartbeat_ms): (String, i32) = (session.get(0), session.get(1));
    let interval = Duration::from_millis(heartbeat_ms.try_into()?);
    {
        let mut is_active = pin!(wait_for_status(&mut events, &user_id, "active"));
        loop {
            let heartbeat = "SELECT presence.heartbeat($1::text::uuid)";
            let heartbeat = client.query_one(heartbeat, &[&session_id]).await?;
            println!("heartbeat: {}", heartbeat.get::<_, &str>(0));
            tokio::select! {
                () = sleep(interval) => {}
                () = &mut is_active => break,
            }
        }
    }

    let online = "SELECT key, presence.is_online(presence.presence_id(key)) FROM unnest($1::text[]) key";
    for row in client.query(online, &[&["rust", "nobody"].as_slice()]).await? {
        let word = if row.get(1) { "online" } else { "offline" };
        println!("{}: {word}", row.get::<_, &str>(0));
    }

    let end = "SELECT presence.end_session($1::text::uuid)";
    client.execute(end, &[&session_id]).await?;
    wait_for_status(&mut events, &user_id, "inactive").await;
    Ok(())
}

/// Prints the changes of a user until one brings the given status.
async fn wait_for_status(events: &mut Receiver<Event>, user_id: &str, status: &str) {
    while let Some(event) = events.recv().await {
        let changes: Vec<Change> = match event {
            Event::Snapshot(changes) | Event::Changed(changes) => changes,
            Event::Disconnected(reason) => {
                eprintln!("disconnected: {reason}");
                continue;
            }
            Event::UpToDate | Event::Notified { .. } => continue,
        };
        for change in changes.iter().filter(|change| change.user_id == user_id) {
            println!("status: {}", change.status);
            if change.status == status {
                return;
            }
        }
    }
}
