//! Why a connection is lost.

use std::fmt;
use std::time::Duration;

use tokio::time::error::Elapsed;

#[derive(Debug)]
pub enum Error {
    /// The server, or the connection to it, reports an error.
    Postgres(tokio_postgres::Error),
    /// The server has not answered in this time.
    NoAnswer(Duration),
    /// The server has closed the connection.
    Closed,
    /// The server does not have the library in `shared_preload_libraries`.
    NotPreloaded,
}

impl Error {
    pub(crate) fn no_answer(limit: Duration) -> impl FnOnce(Elapsed) -> Error {
        move |_| Error::NoAnswer(limit)
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        Error::Postgres(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Postgres(error) => match error.as_db_error() {
                Some(reported) => write!(formatter, "{}", reported.message()),
                None => error.fmt(formatter),
            },
            Error::NoAnswer(limit) => write!(formatter, "the server has not answered within {limit:?}"),
            Error::Closed => formatter.write_str("the server closed the connection"),
            Error::NotPreloaded => {
                formatter.write_str("the server does not have pg_presence in shared_preload_libraries")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Postgres(error) => Some(error),
            _ => None,
        }
    }
}
