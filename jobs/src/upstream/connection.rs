//! Connections of every process, as rows: what commands and pages of other processes show.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use uuid::Uuid;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Being made.
    Connecting,
    /// Usable.
    Open,
    /// Lost, and tried again after a while.
    Waiting,
    /// Not there.
    Closed,
}

impl ConnectionState {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::Waiting => "waiting",
            Self::Closed => "closed",
        }
    }
}

/// A connection of some process.
#[derive(Debug, Clone, Serialize)]
pub struct Connection {
    /// To which upstream.
    pub upstream_id: Uuid,
    /// Of which process.
    pub process: String,
    /// Its state.
    pub state: String,
    /// Subscriptions open on it.
    pub subscriptions: i32,
    /// Attempts to connect since it was last open.
    pub attempts: i32,
    /// Bytes received since the process first used it.
    pub bytes_in: i64,
    /// Bytes sent.
    pub bytes_out: i64,
    /// Why it was lost, or could not be made.
    pub error: Option<String>,
    /// When this was written.
    pub updated_at: DateTime<Utc>,
}

/// Writes what a connection is doing.
///
/// # Errors
/// The database did not answer.
pub async fn note_connection(
    db: impl PgExecutor<'_>,
    connection: &Connection,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into upstream_connection as c
             (upstream_id, process, state, subscriptions, attempts, bytes_in, bytes_out, error)
         select id, $2, $3, $4, $5, $6, $7, $8 from upstream where id = $1
         on conflict (upstream_id, process) do update set
             state = excluded.state, subscriptions = excluded.subscriptions,
             attempts = excluded.attempts, bytes_in = excluded.bytes_in,
             bytes_out = excluded.bytes_out, error = excluded.error, updated_at = now()",
        connection.upstream_id,
        connection.process,
        connection.state,
        connection.subscriptions,
        connection.attempts,
        connection.bytes_in,
        connection.bytes_out,
        connection.error.as_deref().map(crate::queue::one_line),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Takes a stopping process's connections off the list, and those of processes that died.
///
/// # Errors
/// The database did not answer.
pub async fn forget_connections(db: impl PgExecutor<'_>, process: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from upstream_connection
         where process = $1 or updated_at < now() - interval '10 minutes'",
        process,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Connections that processes told of within the last minutes.
///
/// # Errors
/// The database did not answer.
pub async fn connections(db: impl PgExecutor<'_>) -> Result<Vec<Connection>, sqlx::Error> {
    sqlx::query_as!(
        Connection,
        "select upstream_id, process, state, subscriptions, attempts, bytes_in, bytes_out, error, updated_at
         from upstream_connection where updated_at > now() - interval '10 minutes'
         order by upstream_id, process"
    )
    .fetch_all(db)
    .await
}
