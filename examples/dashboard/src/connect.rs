//! How this program connects to the database: what the connection string says, and limits where it says nothing.

use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Config, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What tokio-postgres assumes where a connection string does not say.
const DEFAULT_IDLE: Duration = Duration::from_secs(2 * 60 * 60);

/// Parses a connection string. A connection that was cut silently is noticed within a minute, unless it says otherwise.
///
/// Only `sslmode=require` encrypts: the default, `prefer`, would not protect against anybody who can change packets.
pub fn parse(url: &str) -> Result<Config, tokio_postgres::Error> {
    let mut config: Config = url.parse()?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(5));
    }
    if config.get_keepalives_idle() == DEFAULT_IDLE {
        config.keepalives_idle(Duration::from_secs(30));
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(Duration::from_secs(10));
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(3);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(30));
    }
    if config.get_ssl_mode() == SslMode::Prefer {
        config.ssl_mode(SslMode::Disable);
    }
    Ok(config)
}

/// TLS that verifies the server's certificate, with the system's authorities or those in the file `SSL_CERT_FILE`.
#[derive(Clone)]
pub struct Tls(MakeRustlsConnect);

impl Tls {
    pub fn verified() -> Tls {
        let mut authorities = RootCertStore::empty();
        // Without any, a connection that requires TLS fails and says so.
        authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let config = ClientConfig::builder().with_root_certificates(authorities);
        Tls(MakeRustlsConnect::new(config.with_no_client_auth()))
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        // A Unix-domain socket has no name. It is asked for TLS nevertheless, which PostgreSQL does not offer there.
        let host = if host.is_empty() { "localhost" } else { host };
        MakeTlsConnect::<Socket>::make_tls_connect(&mut self.0, host)
    }
}
