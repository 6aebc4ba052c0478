//! Serves the page. The program is told in `lib.rs`.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_postgres::Config;

use pg_presence_dashboard::board::Board;
use pg_presence_dashboard::database::Database;
use pg_presence_dashboard::follow::follow;
use pg_presence_dashboard::routes::{Site, routes};

/// Where the page is, unless PORT says otherwise.
const PORT: u16 = 3001;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let config: Config = env::var("DATABASE_URL")
        .map_err(|_| "DATABASE_URL is not set: say where the database is, as postgresql://dashboard:…@localhost/app")?
        .parse()
        .map_err(|error| format!("DATABASE_URL is no address of a database: {error}"))?;
    let listener = listen().await?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;

    let database = Arc::new(Database::new(config.clone()));
    let (events, heard) = mpsc::channel(64);
    tokio::spawn(async move { follow(config, &["users"], events).await });
    let board = Board::start(database.clone(), heard);

    println!("http://localhost:{}", address.port());
    let serving = axum::serve(listener, routes(Site { database, board }));
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    tokio::select! {
        served = serving => served.map_err(|error| error.to_string()),
        // Streams have no end to wait for: browsers connect again to who comes after us.
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminated.recv() => Ok(()),
    }
}

/// The port that was asked for, or else the first one free.
async fn listen() -> Result<TcpListener, String> {
    let ports = match env::var("PORT") {
        Ok(port) => {
            let port = port
                .parse()
                .map_err(|_| format!("PORT={port} is no port"))?;
            port..=port
        }
        Err(_) => PORT..=PORT + 100,
    };
    let asked = ports.clone();
    for port in ports {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return Ok(listener);
        }
    }
    Err(format!(
        "port {} is taken: set PORT to another",
        asked.start()
    ))
}
