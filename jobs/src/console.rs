//! The console: who may use the dashboard and the API, what operators did and put aside, and
//! statistics for charts.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

pub mod api_key;
pub mod charts;
pub mod operator;
pub mod session;
pub mod snooze;
pub mod stats;

use std::time::Duration;

use sqlx::PgPool;

/// Deletes what is too old: statistics, marks of charts, sessions, snoozes, and the actions of operators, which are
/// kept for `history`. One transaction.
///
/// # Errors
/// See the module; then nothing was deleted.
pub async fn prune(db: &PgPool, history: Duration) -> Result<(), sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    stats::prune(&mut *tx).await?;
    charts::prune(&mut *tx).await?;
    session::prune(&mut *tx).await?;
    snooze::prune(&mut *tx).await?;
    operator::prune(&mut *tx, history).await?;
    tx.commit().await
}
