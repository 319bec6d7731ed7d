//! Why PostgreSQL could not be reached, and what to do.

use std::{error::Error as _, io::ErrorKind, time::Duration};

use sqlx::{
    Connection, Error, PgConnection,
    postgres::{PgConnectOptions, PgDatabaseError},
};
use tokio::time::timeout;

use super::PostgresError;

/// The longest wait for the connection that finds the reason out.
const WITHIN: Duration = Duration::from_secs(3);

/// Returns why a pool did not connect. A pool that retries tells only that its time is over, so one
/// connection is attempted without it.
pub(super) async fn explained(options: &PgConnectOptions, error: Error) -> PostgresError {
    let error = match error {
        Error::PoolTimedOut => match timeout(WITHIN, PgConnection::connect_with(options)).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) | Err(_) => Error::PoolTimedOut,
        },
        error => error,
    };
    PostgresError::Unreachable { place: place(options), why: why(options, &error) }
}

/// Returns host and port, or the path of the socket.
fn place(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// Returns the rest of a sentence that begins with PostgreSQL and its place.
fn why(options: &PgConnectOptions, error: &Error) -> String {
    match error {
        Error::PoolTimedOut => {
            "did not answer within 5 s: check the host and the port in DATABASE_URL, and the firewalls"
                .to_owned()
        }
        Error::Io(error) => why_not_reached(error),
        Error::Tls(error) => format!(
            "did not agree on TLS ({error}): check the certificate, or `sslmode` in DATABASE_URL"
        ),
        Error::Database(error) => why_refused(options, error.downcast_ref()),
        error => format!("could not be used: {}", with_causes(error)),
    }
}

fn why_not_reached(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            "refused the connection; is it running? Start it, or correct DATABASE_URL".to_owned()
        }
        ErrorKind::NotFound => {
            "has no socket there; is it running? Start it, or correct DATABASE_URL".to_owned()
        }
        _ => format!(
            "is not reachable ({error}): check the host and the port in DATABASE_URL, and the network"
        ),
    }
}

/// PostgreSQL's codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn why_refused(options: &PgConnectOptions, error: &PgDatabaseError) -> String {
    let user = options.get_username();
    match error.code() {
        "28P01" | "28000" => format!(
            "refused the user {user} ({}): check user and password in DATABASE_URL, and pg_hba.conf",
            error.message()
        ),
        "3D000" => format!(
            "has no database {}: create it with `createdb`, or correct DATABASE_URL",
            options.get_database().unwrap_or(user)
        ),
        "53300" => "has no free connection: raise its max_connections, or lower \
                    DATABASE_MAX_CONNECTIONS of Tender's processes"
            .to_owned(),
        "57P03" => format!("is not ready ({}): try again in a moment", error.message()),
        code => format!("refused the connection: {} (code {code})", error.message()),
    }
}

/// Returns an error with its causes, separated by colons.
fn with_causes(error: &Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        source = cause.source();
    }
    words
}
