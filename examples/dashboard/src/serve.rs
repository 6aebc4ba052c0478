//! Serves connections within limits, so that nobody who is slow, or opens many, keeps others out for long.
//!
//! It listens on this machine only. A proxy in front of it adds HTTPS; it must set X-Forwarded-Proto, must not buffer
//! /api/events, and should limit each address to some 20 connections and 10 requests a second.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::events::STREAM_LIFETIME;
use crate::log;

/// How long a connection may take to send the headers of its next request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After this time a connection answers its last request, which may be a stream.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);
const MAX_CONNECTIONS: u64 = 10_000;
/// File descriptors that are kept for everything else: the database's connections, the log, the listener.
const RESERVED_FILES: u64 = 32;

/// Raises the limit of file descriptors as far as it goes, and returns how many connections there is room for.
pub fn max_connections() -> Result<usize, String> {
    let files = rlimit::increase_nofile_limit(MAX_CONNECTIONS + RESERVED_FILES).map_err(|error| error.to_string())?;
    let connections = files.saturating_sub(RESERVED_FILES).min(MAX_CONNECTIONS);
    match usize::try_from(connections) {
        Ok(connections @ 8..) => Ok(connections),
        _ => Err(format!("{files} file descriptors (ulimit -n) are too few")),
    }
}

/// Serves this many connections at once. Others wait until one ends.
pub async fn serve(listener: TcpListener, routes: Router, max_connections: usize) -> Infallible {
    let permits = Arc::new(Semaphore::new(max_connections));
    loop {
        let permit = permits.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((socket, _)) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    serve_connection(socket, routes).await;
                    drop(permit);
                });
            }
            Err(error) => {
                log::error(format!("could not accept a connection: {error:?}"));
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(socket: TcpStream, routes: Router) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(socket), TowerToHyperService::new(routes))
    );
    // An error is of the connection, so there is nobody to answer.
    if timeout(CONNECTION_LIFETIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(STREAM_LIFETIME, connection).await;
    }
}
