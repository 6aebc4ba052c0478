//! A client in Rust, with the package `clients/rust`: `cargo run`, with the connection string in DATABASE_URL.

use std::env;
use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use pg_presence_client::{Event, Follower, Options, Status};
use tokio::time::sleep;
use tokio_postgres::{Config, NoTls};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("DATABASE_URL")
        .map_err(|_| "DATABASE_URL is not set: set it to something like postgresql://app:password@localhost/app")?;
    let config: Config = url.parse()?;
    // Over a network, TLS takes the place of NoTls, as in the dashboard's `connect.rs`.
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);

    let mut follower = Follower::start(config, NoTls, Options::default());
    let user_id = "SELECT presence.presence_id('rust')::text";
    let user_id: String = client.query_one(user_id, &[]).await?.get(0);

    let start = "SELECT session_id::text, heartbeat_ms FROM presence.start_session(user_key => 'rust')";
    let session = client.query_one(start, &[]).await?;
    let (session_id, heartbeat_ms): (String, i32) = (session.get(0), session.get(1));
    let interval = Duration::from_millis(heartbeat_ms.try_into()?);
    {
        let mut is_active = pin!(wait_for_status(&mut follower, &user_id, Status::Active));
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
    wait_for_status(&mut follower, &user_id, Status::Inactive).await;
    Ok(())
}

/// Prints the changes of a user until one brings the given status.
async fn wait_for_status(follower: &mut Follower, user_id: &str, status: Status) {
    loop {
        let users = match follower.next().await {
            Event::Snapshot(users) | Event::Changed(users) => users,
            Event::Stale(error) => {
                eprintln!("disconnected: {error}");
                continue;
            }
            Event::Live | Event::Notified { .. } => continue,
        };
        for user in users.iter().filter(|user| user.user_id == user_id) {
            println!("status: {}", user.status);
            if user.status == status {
                return;
            }
        }
    }
}
