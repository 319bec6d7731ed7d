//! What operators did, and what came of it: the record of every action that is not a relay's own
//! mutation (those are in its activity).

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

use crate::queue::one_line;

/// One action.
#[derive(Debug, Clone, Serialize)]
pub struct Action {
    /// Grows with time.
    pub id: i64,
    /// When, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// A public key in hex, `password`, `link`, or `operator` on the command line.
    pub who: String,
    /// What, such as `pause_queue`.
    pub action: String,
    /// With which thing.
    pub target: String,
    /// What came of it, in one line.
    pub result: String,
}

/// Records an action.
///
/// # Errors
/// The database did not answer.
pub async fn record(
    db: impl PgExecutor<'_>,
    who: &str,
    action: &str,
    target: &str,
    result: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into operator_action (who, action, target, result) values ($1, $2, $3, $4)",
        who,
        action,
        target,
        one_line(result),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The last actions, newest first.
///
/// # Errors
/// The database did not answer.
pub async fn last(db: impl PgExecutor<'_>, limit: i64) -> Result<Vec<Action>, sqlx::Error> {
    sqlx::query_as!(
        Action,
        "select id, created_at, who, action, target, result
         from operator_action order by id desc limit $1",
        limit,
    )
    .fetch_all(db)
    .await
}
