//! A gateway: the program that holds the WebSockets of browsers, to copy from for who has 100,000 of them. Its sessions are
//! bound to one connection to PostgreSQL, so they need no heartbeats; if it dies, their users have a grace to reconnect to
//! another gateway, and nobody is told. Read it in this order:
//!
//! - `message`: what browsers say
//! - `outbox`: how the rest of the program reaches a socket, and why it closes one
//! - `socket`: one browser, and its limits
//! - `sessions`: which sockets hold which sessions, and what the database has still to be told of them
//! - `binder`: the one connection that tells it, in batches
//! - `feed`: the change feed, followed once for all sockets
//!
//! `README.md` says how to run it. It listens on this machine only: a proxy in front of it adds TLS, and limits how many
//! connections each address may open, and how long a handshake may take.

mod binder;
mod feed;
mod message;
mod outbox;
mod sessions;
mod socket;

use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use axum::serve::ListenerExt;
use pg_presence_client::{Follower, Options};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Config, NoTls};

use feed::Feed;
use outbox::Farewell;
use sessions::Sessions;
use socket::App;

/// File descriptors for everything else.
const RESERVED_FILES: u64 = 32;
/// How long browsers may take to leave when the gateway stops, and the database to end the sessions of those that say bye.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

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
    let config = database()?;
    let grace = number("GRACE", 30)?;
    if !(1..=86_400).contains(&grace) {
        return Err(format!("GRACE={grace} is not between 1 and 86400 seconds"));
    }
    let grace = Duration::from_secs(grace.into());
    let max_sockets = max_sockets(number("MAX_SOCKETS", 100_000)?)?;
    let origins = env::var("ORIGINS").unwrap_or_default();
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;

    let sessions = Arc::new(Sessions::default());
    tokio::spawn(binder::bind(sessions.clone(), config.clone(), grace));
    let told = sessions.clone();
    let feed = Arc::new(Feed::default());
    let follower = Follower::start(config, NoTls, Options::default());
    tokio::spawn({
        let feed = feed.clone();
        async move { feed.follow(follower).await }
    });

    let (everybody, stop) = watch::channel(None);
    let places = Arc::new(Semaphore::new(max_sockets as usize));
    let app = App {
        sessions,
        feed,
        origins: origins.split_whitespace().map(str::to_owned).collect(),
        places: places.clone(),
        stop,
    };
    let host = env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let port = number("PORT", 3002)?;
    let listener = TcpListener::bind(format!("{host}:{port}")).await;
    let listener = listener.map_err(|error| format!("could not listen on {host}:{port}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("ws://{address}/socket");
    println!("at most {max_sockets} sockets");
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    let server = axum::serve(
        listener,
        Router::new().route("/socket", get(socket::open)).with_state(app),
    );
    tokio::select! {
        result = server => return result.map_err(|error| error.to_string()),
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    // Nobody is accepted any more. Browsers reconnect elsewhere; the sessions that do not are released by the end of the
    // binder's connection, with the grace.
    everybody.send_replace(Some(Farewell::GoingAway));
    let gone = async {
        let _ = places.acquire_many(max_sockets).await;
        while told.has_byes() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = timeout(SHUTDOWN_TIMEOUT, gone).await;
    Ok(())
}

/// Returns where to connect, directly rather than through a pooler. A connection that was cut silently is noticed within a
/// minute, unless the connection string says otherwise. Over a network, TLS takes the place of `NoTls`, as in the dashboard's
/// `connect.rs`.
fn database() -> Result<Config, String> {
    let url = env::var("DATABASE_URL")
        .map_err(|_| "DATABASE_URL is not set: set it to something like postgresql://app:…@localhost/app")?;
    let mut config: Config = url
        .parse()
        .map_err(|error| format!("DATABASE_URL is not a valid connection string: {error}"))?;
    if config.get_application_name().is_none() {
        config.application_name("gateway");
    }
    config.keepalives_idle(Duration::from_secs(30));
    config.keepalives_interval(Duration::from_secs(10));
    config.keepalives_retries(3);
    config.tcp_user_timeout(Duration::from_secs(30));
    Ok(config)
}

/// Raises the limit of file descriptors as far as it goes, and returns how many of these sockets there is room for.
fn max_sockets(wanted: u32) -> Result<u32, String> {
    let files = rlimit::increase_nofile_limit(u64::from(wanted) + RESERVED_FILES);
    let room = files.map_err(|error| error.to_string())?.saturating_sub(RESERVED_FILES);
    Ok(u32::try_from(room).map_or(wanted, |room| wanted.min(room)))
}

/// Returns the number in an environment variable.
fn number(name: &str, default: u32) -> Result<u32, String> {
    match env::var(name) {
        Ok(value) => value
            .parse()
            .map_err(|_| format!("{name}={value} is not a valid number")),
        Err(_) => Ok(default),
    }
}
