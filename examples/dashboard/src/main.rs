//! Serves the dashboard. `lib.rs` is the guide to the program.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_postgres::Config;

use pg_presence_dashboard::database::Database;
use pg_presence_dashboard::follow::follow;
use pg_presence_dashboard::live_users::LiveUsers;
use pg_presence_dashboard::request::AppState;
use pg_presence_dashboard::routes::routes;

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
    let config: Config = env::var("DATABASE_URL")
        .map_err(|_| "DATABASE_URL is not set: set it to something like postgresql://dashboard:…@localhost/app")?
        .parse()
        .map_err(|error| format!("DATABASE_URL is not a valid connection string: {error}"))?;
    let listener = listen().await?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;

    let database = Arc::new(Database::new(config.clone()));
    let (sender, events) = mpsc::channel(64);
    tokio::spawn(async move { follow(config, &["users", "logins"], sender).await });
    let users = LiveUsers::start(database.clone(), events);

    println!("http://localhost:{}", address.port());
    let server = axum::serve(listener, routes(AppState { database, users }));
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    tokio::select! {
        result = server => result.map_err(|error| error.to_string()),
        // Do not wait for open streams, which have no end: browsers reconnect to the next process.
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// Listens on PORT, or, when it is not set, on the first free port from [`DEFAULT_PORT`].
async fn listen() -> Result<TcpListener, String> {
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
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return Ok(listener);
        }
    }
    Err(format!("port {first} is in use: set PORT to another one"))
}
