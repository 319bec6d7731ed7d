//! Low-water marks: no job of a queue waits that is due before its mark, so looks start there and pass by the
//! index entries of jobs that ended. The invariant and its proof are in `docs/adr/0025-low-water-marks.md`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

/// A transaction and a time before it: once every transaction with a smaller number has ended, what still comes to
/// wait is due after that time, or noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    xact: String,
    at: DateTime<Utc>,
}

/// Moves the marks of queues up to a barrier, and returns the next one. While transactions hold the barrier, it
/// moves nothing and returns the same barrier.
///
/// # Errors
/// See [`queue`](super).
pub async fn advance(
    db: impl PgExecutor<'_>,
    queues: &[String],
    upto: Option<&Barrier>,
) -> Result<Barrier, sqlx::Error> {
    sqlx::query_as!(
        Barrier,
        r#"select next_barrier::text as "xact!", next_at as "at!"
           from advance_low_water($1, $2::text::xid8, $3)"#,
        queues,
        upto.map(|barrier| &barrier.xact),
        upto.map(|barrier| barrier.at),
    )
    .fetch_one(db)
    .await
}

/// Looks for jobs that wait below a mark, and lowers the marks for them. Returns how many marks were wrong: none,
/// unless rows were written without the table's trigger, or the server's clock was set back.
///
/// # Errors
/// See [`queue`](super).
pub async fn check(db: impl PgExecutor<'_>, queues: &[String]) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select check_low_water($1) as "wrong!""#, queues).fetch_one(db).await
}

/// What waits in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The name of the queue.
    pub queue: String,
    /// Whether a job is due now.
    pub is_due: bool,
    /// In what time the first of the other jobs is due, if there is one.
    pub next_in: Option<Duration>,
}

/// Returns what waits in each queue, for the queues that have a waiting job and are not paused.
///
/// # Errors
/// See [`queue`](super).
pub async fn next_due(db: impl PgExecutor<'_>, queues: &[String]) -> Result<Vec<Due>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select queue as "queue!", is_due as "is_due!", due_in from next_due($1)"#,
        queues,
    );
    // A job may be due in the year 9999.
    let wait =
        |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    let due = rows.fetch_all(db).await?.into_iter().map(|row| Due {
        queue: row.queue,
        is_due: row.is_due,
        next_in: row.due_in.map(wait),
    });
    Ok(due.collect())
}
