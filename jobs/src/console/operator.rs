//! The audit log: every action of an operator with its result. Mutations of a relay are recorded in
//! the relay's activity instead.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

use crate::queue::one_line;

/// One recorded action.
#[derive(Debug, Clone, Serialize)]
pub struct Action {
    /// The id of the row; later actions have larger ids.
    pub id: i64,
    /// Time of the action, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// Who acted: a public key in hex, `password`, `link`, or `operator` for the command line.
    pub who: String,
    /// The kind of action, such as `pause_queue`.
    pub action: String,
    /// The target of the action: host, queue or job id.
    pub target: String,
    /// The result, on one line.
    pub result: String,
}

/// Records an action. The result is stored on one line; see [`one_line`].
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

/// Deletes at most 5,000 of the oldest actions, if they are older than `keep`. Returns their number.
pub async fn prune(db: impl PgExecutor<'_>, keep: Duration) -> Result<u64, sqlx::Error> {
    let pruned = sqlx::query!(
        "delete from operator_action
         where id in (select id from operator_action order by id limit 5000)
           and created_at < now() - make_interval(secs => $1)",
        keep.as_secs_f64(),
    );
    Ok(pruned.execute(db).await?.rows_affected())
}

/// Returns the last `limit` actions, newest first.
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
