//! The connections of every process to upstreams. Processes store them, so that the commands and
//! pages of other processes can show them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use uuid::Uuid;

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// The connection is being established.
    Connecting,
    /// The connection is usable.
    Open,
    /// The connection was lost; the next attempt follows after a delay.
    Waiting,
    /// There is no connection and no attempt is planned.
    Closed,
}

impl ConnectionState {
    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::Waiting => "waiting",
            Self::Closed => "closed",
        }
    }
}

/// The connection of one process to one upstream.
#[derive(Debug, Clone, Serialize)]
pub struct Connection {
    /// The id of the upstream.
    pub upstream_id: Uuid,
    /// The name of the process.
    pub process: String,
    /// The name of a [`ConnectionState`].
    pub state: String,
    /// The number of open subscriptions.
    pub subscriptions: i32,
    /// Attempts to connect since the connection was last open.
    pub attempts: i32,
    /// Bytes received since the process first used the upstream.
    pub bytes_in: i64,
    /// Bytes sent since then.
    pub bytes_out: i64,
    /// Why the connection was lost or could not be established.
    pub error: Option<String>,
    /// When the process last reported.
    pub updated_at: DateTime<Utc>,
}

/// Stores the state of a connection. Does nothing if the upstream was deleted.
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

/// Deletes the connections of a stopping process, and those that were not reported for ten minutes
/// because their process died.
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

/// Deletes the connections of processes that died. Returns their number.
pub async fn forget_dead_connections(db: impl PgExecutor<'_>) -> Result<u64, sqlx::Error> {
    let dead = sqlx::query!(
        "delete from upstream_connection where updated_at < now() - interval '10 minutes'"
    );
    Ok(dead.execute(db).await?.rows_affected())
}

/// Returns the connections of living processes: those that were reported within the last 30 s.
pub async fn connections(db: impl PgExecutor<'_>) -> Result<Vec<Connection>, sqlx::Error> {
    sqlx::query_as!(
        Connection,
        "select upstream_id, process, state, subscriptions, attempts, bytes_in, bytes_out, error, updated_at
         from upstream_connection where updated_at > now() - interval '30 s'
         order by upstream_id, process"
    )
    .fetch_all(db)
    .await
}
