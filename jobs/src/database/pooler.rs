//! Detects a pooler in transaction mode. Behind one, a session's settings and locks land on a
//! connection that other clients use too, so migrations cannot run there.

use sqlx::{Connection, PgConnection, Row, postgres::PgConnectOptions};

/// Attempts to detect the pooler. One is enough unless other clients use the same pooler meanwhile.
const LOOKS: usize = 5;

/// Returns whether a pooler gives this connection and another one the same session of the server.
pub(super) async fn shares_sessions(
    conn: &mut PgConnection,
    at: &PgConnectOptions,
) -> Result<bool, sqlx::Error> {
    let mut other = PgConnection::connect_with(at).await?;
    let mut is_shared = false;
    for _ in 0..LOOKS {
        let before = session(conn).await?;
        let mut tx = other.begin().await?;
        let beside = session(&mut tx).await?;
        let after = session(conn).await?;
        tx.rollback().await?;
        is_shared |= before == beside || before != after;
    }
    other.close().await?;
    Ok(is_shared)
}

/// Returns the id of the server's process. The simple protocol leaves no prepared statement behind.
async fn session(conn: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("select pg_backend_pid()").fetch_one(conn).await?.try_get(0)
}
