//! Items of the attention list that an operator has put aside until a time, with a reason.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

/// The most snoozes that are read; more are not listed as snoozed.
const MOST: i64 = 1000;
/// The longest reason, in characters.
pub const LONGEST_REASON: usize = 300;
/// The longest snooze, in hours: 30 days.
pub const LONGEST_HOURS: i32 = 30 * 24;

/// A snooze that has not ended.
#[derive(Debug, Clone, Serialize)]
pub struct Snooze {
    /// The key of the item.
    pub key: String,
    /// Why the item can wait.
    pub reason: String,
    /// Who snoozed it: a public key in hex, `password`, `link` or `operator`.
    pub who: String,
    /// How many things the item counted.
    pub size: i64,
    /// When it was snoozed.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub ends_at: DateTime<Utc>,
}

/// Snoozes an item for `hours` hours, from 1 to [`LONGEST_HOURS`]. A snooze of the item that exists is
/// replaced. `size` is how many things the item counts. `reason` has 1 to [`LONGEST_REASON`] characters; the schema refuses others.
pub async fn begin(
    db: impl PgExecutor<'_>,
    key: &str,
    reason: &str,
    who: &str,
    size: i64,
    hours: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into attention_snooze (key, reason, who, size, ends_at)
         values ($1, $2, $3, $4, now() + make_interval(hours => $5))
         on conflict (key) do update
         set reason = excluded.reason, who = excluded.who, size = excluded.size, created_at = now(),
             ends_at = excluded.ends_at",
        key,
        reason,
        who,
        size.max(1),
        hours.clamp(1, LONGEST_HOURS),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends a snooze. Returns false if the item was not snoozed.
pub async fn end(db: impl PgExecutor<'_>, key: &str) -> Result<bool, sqlx::Error> {
    let ended =
        sqlx::query!("delete from attention_snooze where key = $1 and ends_at > now()", key);
    Ok(ended.execute(db).await?.rows_affected() == 1)
}

/// Returns the snoozes that have not ended, the next to end first.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Snooze>, sqlx::Error> {
    sqlx::query_as!(
        Snooze,
        "select key, reason, who, size, created_at, ends_at from attention_snooze
         where ends_at > now() order by ends_at, key limit $1",
        MOST,
    )
    .fetch_all(db)
    .await
}

/// Deletes snoozes that ended more than a day ago. Returns their number.
pub async fn prune(db: impl PgExecutor<'_>) -> Result<u64, sqlx::Error> {
    let pruned =
        sqlx::query!("delete from attention_snooze where ends_at < now() - interval '1 day'");
    Ok(pruned.execute(db).await?.rows_affected())
}
