//! How a transaction begins.

use futures_util::future::BoxFuture;
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};

/// Begins a transaction.
///
/// A caller may leave while it waits: a client of the API that went away, a deadline, a process that stops. sqlx 0.9.0 then
/// returns the connection to the pool inside of the transaction (sqlx issue 4385), and what others do on it is not
/// committed. Therefore a task begins it, which nobody cancels, and ends it if its caller has left.
///
/// # Errors
/// See [`database`](super).
pub async fn begin(db: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    begin_with(db, "BEGIN").await
}

/// Begins a transaction by these statements.
pub(crate) async fn begin_with(
    db: &PgPool,
    statements: &'static str,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let db = db.clone();
    let begun = tokio::spawn(async move { begun(&db, statements).await });
    begun.await.unwrap_or_else(|error| {
        Err(sqlx::Error::Protocol(format!("no transaction was begun: {error}")))
    })
}

#[expect(clippy::disallowed_methods, reason = "the one place that may")]
async fn begun(
    db: &PgPool,
    statements: &'static str,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    db.begin_with(statements).await
}

/// Where a transaction begins.
pub trait Begin<'a>: Send {
    /// Begins a transaction: of a pool as [`begin`] does, or within the transaction of a connection.
    fn begin(self) -> BoxFuture<'a, Result<Transaction<'a, Postgres>, sqlx::Error>>;
}

impl<'a> Begin<'a> for &'a PgPool {
    fn begin(self) -> BoxFuture<'a, Result<Transaction<'a, Postgres>, sqlx::Error>> {
        Box::pin(async { begin(self).await })
    }
}

impl<'a> Begin<'a> for &'a mut PgConnection {
    fn begin(self) -> BoxFuture<'a, Result<Transaction<'a, Postgres>, sqlx::Error>> {
        Box::pin(Connection::begin(self))
    }
}
