//! Serves the dashboard. `lib.rs` is the guide to the program.
//!
//! - `DATABASE_URL`: the database, directly or through a pooler
//! - `DIRECT_URL`: the database, for the connection that listens, where `DATABASE_URL` is a pooler
//! - `PORT`: the port, of this machine only

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use pg_presence_client::{Follower, Options};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_postgres::Config;

use pg_presence_dashboard::connect::{self, Tls};
use pg_presence_dashboard::database::Database;
use pg_presence_dashboard::live_users::LiveUsers;
use pg_presence_dashboard::request::AppState;
use pg_presence_dashboard::routes::routes;
use pg_presence_dashboard::serve::{max_connections, serve};

/// The first port to try when PORT is not set.
const DEFAULT_PORT: u16 = 3001;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let config = config_of("DATABASE_URL")?
        .ok_or("DATABASE_URL is not set: set it to something like postgresql://dashboard:…@localhost/app")?;
    let direct = config_of("DIRECT_URL")?.unwrap_or_else(|| config.clone());
    let max_connections = max_connections()?;
    let listener = listen().await?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;

    let database = Arc::new(Database::new(config));
    let options = Options {
        channels: vec!["users".to_owned(), "logins".to_owned()],
        ..Options::default()
    };
    let follower = Follower::start(direct, Tls::verified(), options);
    let users = LiveUsers::start(database.clone(), follower);
    // Other requests always find a place.
    let streams = Arc::new(Semaphore::new(max_connections * 3 / 4));

    println!("http://localhost:{}", address.port());
    let routes = routes(AppState {
        database,
        users,
        streams,
    });
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    tokio::select! {
        never = serve(listener, routes, max_connections) => match never {},
        // Do not wait for open streams, which have no end: browsers reconnect to the next process.
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// Returns the connection string in an environment variable.
fn config_of(name: &str) -> Result<Option<Config>, String> {
    let Ok(url) = env::var(name) else { return Ok(None) };
    let config = connect::parse(&url);
    config
        .map(Some)
        .map_err(|error| format!("{name} is not a valid connection string: {error}"))
}

/// Listens on PORT, or, when it is not set, on the first free port from [`DEFAULT_PORT`]; on the address HOST, or for this
/// machine only.
async fn listen() -> Result<TcpListener, String> {
    let host = env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let ports = match env::var("PORT") {
        Ok(port) => {
            let port = port
                .parse()
                .map_err(|_| format!("PORT={port} is not a valid port number"))?;
            port..=port
        }
        Err(_) => DEFAULT_PORT..=DEFAULT_PORT + 100,
    };
    let first = *ports.start();
    for port in ports {
        if let Ok(listener) = TcpListener::bind((host.as_str(), port)).await {
            return Ok(listener);
        }
    }
    Err(format!("port {first} is in use: set PORT to another one"))
}
