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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// When the process last stored this state: while it runs, at most 15 s ago, or 6 min if it is closed.
    pub updated_at: DateTime<Utc>,
}

/// Stores the states of connections in one statement. An unchanged state is stored again only after
/// 10 s, as a heartbeat, or 5 min if it is closed. Connections to upstreams that were deleted are left out.
pub async fn note_connections(
    db: impl PgExecutor<'_>,
    connections: &[Connection],
) -> Result<(), sqlx::Error> {
    fn column<'a, T>(rows: &'a [Connection], of: impl Fn(&'a Connection) -> T) -> Vec<T> {
        rows.iter().map(of).collect()
    }
    // The lock keeps an upstream from being deleted before its row is inserted: that would fail the rows of
    // all the others too.
    sqlx::query!(
        "insert into upstream_connection as c
             (upstream_id, process, state, subscriptions, attempts, bytes_in, bytes_out, error)
         select upstream.id, n.process, n.state, n.subscriptions, n.attempts, n.bytes_in, n.bytes_out, n.error
         from unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::int[], $6::bigint[], $7::bigint[],
                     $8::text[])
              as n (upstream_id, process, state, subscriptions, attempts, bytes_in, bytes_out, error)
         join upstream on upstream.id = n.upstream_id
         order by upstream.id
         for key share of upstream
         on conflict (upstream_id, process) do update set
             state = excluded.state, subscriptions = excluded.subscriptions,
             attempts = excluded.attempts, bytes_in = excluded.bytes_in,
             bytes_out = excluded.bytes_out, error = excluded.error, updated_at = now()
         where c.updated_at < now() - case excluded.state when 'closed' then interval '290 s' else interval '10 s' end
            or (c.state, c.subscriptions, c.attempts, c.bytes_in, c.bytes_out, c.error)
               is distinct from (excluded.state, excluded.subscriptions, excluded.attempts,
                                 excluded.bytes_in, excluded.bytes_out, excluded.error)",
        &column(connections, |one| one.upstream_id),
        &column(connections, |one| one.process.clone()),
        &column(connections, |one| one.state.clone()),
        &column(connections, |one| one.subscriptions),
        &column(connections, |one| one.attempts),
        &column(connections, |one| one.bytes_in),
        &column(connections, |one| one.bytes_out),
        &column(connections, |one| one.error.as_deref().map(crate::queue::one_line))
            as &[Option<String>],
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

/// Returns the connections of living processes: those that were reported within the last 30 s, and closed ones within
/// the last ten minutes.
pub async fn connections(db: impl PgExecutor<'_>) -> Result<Vec<Connection>, sqlx::Error> {
    sqlx::query_as!(
        Connection,
        "select upstream_id, process, state, subscriptions, attempts, bytes_in, bytes_out, error, updated_at
         from upstream_connection
         where updated_at > now() - case state when 'closed' then interval '10 minutes' else interval '30 s' end
         order by upstream_id, process"
    )
    .fetch_all(db)
    .await
}
