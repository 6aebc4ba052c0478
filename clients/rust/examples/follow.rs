//! Prints every change: `cargo run --example follow`, with the connection string in DATABASE_URL.

use std::env;
use std::error::Error;

use pg_presence_client::{Event, Follower, Options, User};
use tokio_postgres::NoTls;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options::default();
    if let Some(schema) = env::args().nth(1) {
        options.schema = schema;
    }
    let mut follower = Follower::start(env::var("DATABASE_URL")?.parse()?, NoTls, options);
    loop {
        match follower.next().await {
            Event::Snapshot(users) => println!("snapshot {}", users.len()),
            Event::Changed(users) => users.iter().for_each(print_change),
            Event::Live => {
                let mut online: Vec<_> = follower.online_users().into_iter().map(|user| user.user_id).collect();
                online.sort();
                online.insert(0, "live".to_owned());
                println!("{}", online.join(" "));
            }
            Event::Stale(error) => println!("stale {error}"),
            Event::Notified { .. } => {}
        }
    }
}

fn print_change(user: &User) {
    println!("change {} {} {}", user.seq, user.user_id, user.status);
}
