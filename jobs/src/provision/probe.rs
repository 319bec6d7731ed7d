//! A probe that an operator asks for: the wait of an open breaker ends, and what the probe finds is reported.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};

/// The interval between two looks at whether the probe has ended.
const LOOK: Duration = Duration::from_millis(200);

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "found")]
pub enum Probe {
    /// The breaker was not open; nothing was done. Also for an unknown instance.
    NotOpen,
    /// The instance answered. Its breaker is closed, and the jobs that waited come due.
    Answered,
    /// The call failed, and the breaker is still open.
    Failed {
        /// The error, on one line.
        error: String,
        /// Whether the instance refuses our key, in its own words.
        refuses_key: bool,
        /// When the next probe may start.
        next_at: DateTime<Utc>,
    },
    /// No probe has ended yet. The next job of the instance is the probe.
    Awaited {
        /// Whether a job waits for the instance. If none does, the next change of a relay is the probe.
        has_job: bool,
    },
}

/// Ends the wait of an open breaker, so that the next job is its probe, makes up to five jobs due for it, and waits
/// at most `within` for what the probe finds.
///
/// # Errors
/// The database is unreachable or refuses a statement.
pub async fn probe(db: &PgPool, name: &str, within: Duration) -> Result<Probe, sqlx::Error> {
    let Some(failed_before) = end_wait(db, name).await? else { return Ok(Probe::NotOpen) };
    let until = Instant::now() + within;
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Some(found) = found(db, name, failed_before).await? {
            return Ok(found);
        }
        if Instant::now() >= until {
            return Ok(Probe::Awaited { has_job: has_job(db, name).await? });
        }
    }
}

/// Ends the wait, and makes jobs due. Returns how many probes had failed before, or `None` if the breaker is not open.
async fn end_wait(db: &PgPool, name: &str) -> Result<Option<i32>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let failed_before = sqlx::query_scalar!(
        // A probe that fails on demand must not lengthen the wait for the next: it is not counted.
        "update zooid_instance set retry_at = now(), failed_probes = greatest(failed_probes - 1, 0)
         where name = $1 and opened_at is not null
         returning failed_probes",
        name,
    )
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query!(
        "update apalis.jobs set run_at = now() where id in (
             select id from apalis.jobs
             where status = 'Pending' and metadata->'held_by' = $1
             limit 5 for update skip locked)",
        name,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(failed_before)
}

/// Returns what a probe found since. A failed probe is counted, and begins the next wait.
async fn found(db: &PgPool, name: &str, failed_before: i32) -> Result<Option<Probe>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select failed_probes > $2 or retry_at > now() as "has_failed!", retry_at as "next_at!",
                  last_error, refuses_key
           from zooid_instance where name = $1 and opened_at is not null"#,
        name,
        failed_before,
    )
    .fetch_optional(db)
    .await?;
    Ok(match row {
        None => Some(Probe::Answered),
        Some(row) => row.has_failed.then_some(Probe::Failed {
            error: row.last_error,
            refuses_key: row.refuses_key,
            next_at: row.next_at,
        }),
    })
}

async fn has_job(db: &PgPool, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from apalis.jobs
                          where status in ('Pending', 'Queued', 'Running') and metadata->'held_by' = $1)
               as "has_job!""#,
        name,
    )
    .fetch_one(db)
    .await
}
