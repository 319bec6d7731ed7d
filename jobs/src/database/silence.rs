//! Silence: connections on which the server does not answer, and which do not end either, because the
//! server's machine was reset or something on the path drops packets.
//!
//! sqlx waits for such an answer for ever, also when it takes a connection back into its pool, so a
//! caller's own time limit is not enough: the connection would keep its place in the pool. This module
//! therefore shuts the sockets down. Each waiting statement then fails like on any lost connection, and
//! the pool connects again. See `docs/adr/0017-silent-connections.md`.

use std::{io, os::fd::RawFd, time::Duration};

use nix::sys::socket::{Shutdown, SockaddrIn, SockaddrIn6, SockaddrStorage, getpeername, shutdown};
use sqlx::{Connection, PgPool, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep_until, timeout};

/// The longest call to the ledger. A statement that the server executes ends sooner: the server's own
/// limits see to that. A call that lasts longer was not answered.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(35);
/// The interval of [`watch`].
const EVERY: Duration = Duration::from_secs(5);
/// The longest wait for an answer to its ping.
const PING_WITHIN: Duration = Duration::from_secs(5);

/// Runs a call to the ledger. If it lasts longer than [`ANSWER_WITHIN`], it fails, and all connections
/// of this process to the database are shut down.
///
/// # Errors
/// Those of the call; [`sqlx::Error::Io`] of the kind `TimedOut`.
pub async fn answered<T>(
    db: &PgPool,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    within(&db.connect_options(), ANSWER_WITHIN, call).await
}

/// As [`answered`], with another limit: for calls of many statements.
///
/// # Errors
/// See [`answered`].
pub async fn within<T>(
    server: &PgConnectOptions,
    limit: Duration,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    if let Ok(ended) = timeout(limit, call).await {
        return ended;
    }
    hang_up(server);
    let silent = format!("the database did not answer within {} s", limit.as_secs());
    Err(io::Error::new(io::ErrorKind::TimedOut, silent).into())
}

/// Pings the database every 5 s on a connection of the pool that is kept for this. If the ping is not
/// answered within 5 s, or if the connection is lost, all connections of this process to the database
/// are shut down: a connection whose server was reset never ends by itself while it waits for an answer.
/// Runs until it is dropped.
pub async fn watch(db: &PgPool) {
    let mut next = Instant::now() + EVERY;
    loop {
        sleep_until(next).await;
        let Ok(mut connection) = db.acquire().await else {
            next = Instant::now() + EVERY;
            continue;
        };
        loop {
            let server = db.connect_options();
            match within(&server, PING_WITHIN, connection.ping()).await {
                Ok(()) => sleep_until(Instant::now() + EVERY).await,
                Err(sqlx::Error::Database(_)) => break, // the server ended this session in order
                Err(_) => {
                    hang_up(&server);
                    break;
                }
            }
        }
        next = Instant::now();
    }
}

/// Shuts down the sockets of this process that are connected to the database. Returns how many.
pub fn hang_up(server: &PgConnectOptions) -> usize {
    let Ok(open) = std::fs::read_dir("/dev/fd") else { return 0 };
    let numbers = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A descriptor that was closed in between is none of a socket any more, or that of a new connection,
    // which fails once.
    numbers.filter(|fd| leads_to(*fd, server) && shutdown(*fd, Shutdown::Both).is_ok()).count()
}

/// Whether the descriptor is a socket whose peer is the database. Its port is enough: no other server
/// that Tender calls has PostgreSQL's port, and a name may stand for different addresses over time.
fn leads_to(fd: RawFd, server: &PgConnectOptions) -> bool {
    let Ok(peer) = getpeername::<SockaddrStorage>(fd) else { return false };
    if let Some(peer) = peer.as_unix_addr() {
        return peer.path().is_some_and(|path| Some(path) == socket_of(server).as_deref());
    }
    let port = peer.as_sockaddr_in().map(SockaddrIn::port);
    port.or_else(|| peer.as_sockaddr_in6().map(SockaddrIn6::port)) == Some(server.get_port())
}

/// The path of the server's Unix socket, if it is reached by one.
fn socket_of(server: &PgConnectOptions) -> Option<std::path::PathBuf> {
    let is_dir = server.get_host().starts_with('/');
    let host = is_dir.then(|| std::path::PathBuf::from(server.get_host()));
    let dir = server.get_socket().cloned().or(host)?;
    Some(dir.join(format!(".s.PGSQL.{}", server.get_port())))
}
