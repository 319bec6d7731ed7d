//! How every pool of Tender connects: with limits on the server's side, and with a ping of bounded
//! duration before an idle connection is used.

use std::time::Duration;

use sqlx::{
    Connection, Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::silence;

/// The longest wait for a connection of a pool.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);
/// A connection that was idle longer than this is pinged before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(2);
/// The longest wait for the answer to that ping. It is shorter than [`ACQUIRE_WITHIN`], so that the
/// caller finds out which of both was too slow.
const PING_WITHIN: Duration = Duration::from_secs(4);

/// The settings of our sessions. Without them a statement of a process that is gone would hold its locks
/// for as long as the server keeps the connection. Just-in-time compilation costs more than our
/// statements take.
const SESSION: &str = "set statement_timeout = '30s'; set lock_timeout = '10s'; \
     set idle_in_transaction_session_timeout = '30s'; set tcp_keepalives_idle = 10; \
     set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3; \
     set tcp_user_timeout = '25s'; set jit = off";

/// What lies between a pool and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// A connection is a session: it gets the session's settings.
    Direct,
    /// A pooler in transaction mode: settings of a session would leak to other clients, so none is
    /// made.
    Pooled,
}

/// Returns the settings of a pool that connects with `options`. `more` is executed in each new session,
/// unless the path is pooled.
pub fn pool(options: &PgConnectOptions, path: Path, more: &'static str) -> PgPoolOptions {
    let server = options.clone();
    PgPoolOptions::new()
        .acquire_timeout(ACQUIRE_WITHIN)
        // A ping before every statement would double the round trips. A ping after a pause is enough to
        // detect a restart of the server.
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let server = server.clone();
            Box::pin(async move {
                if meta.idle_for < TRUSTED_IDLE {
                    return Ok(true);
                }
                Ok(silence::within(&server, PING_WITHIN, connection.ping()).await.is_ok())
            })
        })
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if path == Path::Direct {
                    connection.execute(SESSION).await?;
                    connection.execute(more).await?;
                }
                Ok(())
            })
        })
}
