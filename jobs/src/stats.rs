//! What syncs came to, per minute: for charts and percentiles. Processes add what they counted every
//! second, so a killed one loses its last second of it; nothing is decided by these numbers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

/// Buckets of the latency: bucket i ends at 5 ms × 2^i, the last has no end (about 22 min and more).
pub const BUCKETS: usize = 20;
/// The end of the first bucket.
const FIRST_MS: u64 = 5;

/// What one process counted since it last told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Syncs that reached zooid.
    pub synced: i64,
    /// Attempts that failed and are tried again.
    pub failed: i64,
    /// Attempts after which a relay was given up.
    pub gave_up: i64,
    /// Successes by the time from the relay's change to the settle.
    pub latency: [i64; BUCKETS],
}

/// One minute of all processes.
#[derive(Debug, Clone, Serialize)]
pub struct Minute {
    /// Its start.
    pub minute: DateTime<Utc>,
    /// Syncs that reached zooid.
    pub synced: i64,
    /// Attempts that failed, given up or not.
    pub failed: i64,
    /// Successes by latency; see [`BUCKETS`].
    #[serde(skip)]
    pub latency: Vec<i64>,
}

impl Counts {
    /// Counts a success.
    pub fn add_synced(&mut self, latency: Duration) {
        self.synced += 1;
        self.latency[bucket(latency)] += 1;
    }
}

fn bucket(latency: Duration) -> usize {
    let ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
    (0..BUCKETS - 1).find(|bucket| ms <= FIRST_MS << bucket).unwrap_or(BUCKETS - 1)
}

/// The latency that `share` (0 to 1) of the successes did not pass, to the end of its bucket; `None`
/// when there were none.
pub fn percentile(minutes: &[Minute], share: f64) -> Option<Duration> {
    let mut sums = [0_i64; BUCKETS];
    for minute in minutes {
        for (sum, count) in sums.iter_mut().zip(&minute.latency) {
            *sum += count;
        }
    }
    let total: i64 = sums.iter().sum();
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a rank")]
    let rank = (total as f64 * share).ceil() as i64;
    let mut seen = 0;
    let reached = sums.iter().position(|count| {
        seen += count;
        total > 0 && seen >= rank.max(1)
    })?;
    Some(Duration::from_millis(FIRST_MS << reached))
}

/// Adds what a process counted to the current minute.
///
/// # Errors
/// The database did not answer; the counts can be added later.
pub async fn add(db: impl PgExecutor<'_>, counts: &Counts) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into sync_minute as m (minute, synced, failed, gave_up, latency)
         values (date_trunc('minute', now()), $1, $2, $3, $4)
         on conflict (minute) do update set
             synced = m.synced + excluded.synced, failed = m.failed + excluded.failed,
             gave_up = m.gave_up + excluded.gave_up,
             latency = array(select coalesce(a, 0) + coalesce(b, 0)
                             from unnest(m.latency, excluded.latency) as u (a, b))",
        counts.synced,
        counts.failed,
        counts.gave_up,
        &counts.latency,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The last `minutes` minutes, oldest first, without gaps.
///
/// # Errors
/// The database did not answer.
pub async fn last(db: impl PgExecutor<'_>, minutes: i32) -> Result<Vec<Minute>, sqlx::Error> {
    sqlx::query_as!(
        Minute,
        r#"select at as "minute!", coalesce(synced, 0) as "synced!",
                  coalesce(failed + gave_up, 0) as "failed!", coalesce(latency, '{}') as "latency!"
           from generate_series(date_trunc('minute', now()) - make_interval(mins => $1 - 1),
                                date_trunc('minute', now()), interval '1 minute') at
           left join sync_minute on minute = at
           order by at"#,
        minutes,
    )
    .fetch_all(db)
    .await
}

/// Forgets minutes older than a week.
///
/// # Errors
/// The database did not answer.
pub async fn prune(db: impl PgExecutor<'_>) -> Result<u64, sqlx::Error> {
    let pruned = sqlx::query!("delete from sync_minute where minute < now() - interval '7 days'");
    Ok(pruned.execute(db).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(latencies: &[u64]) -> Minute {
        let mut counts = Counts::default();
        for ms in latencies {
            counts.add_synced(Duration::from_millis(*ms));
        }
        let latency = counts.latency.to_vec();
        Minute { minute: DateTime::default(), synced: counts.synced, failed: 0, latency }
    }

    #[test]
    fn percentiles_are_ends_of_buckets_over_all_minutes() {
        let minutes = [minute(&[1, 4, 9]), minute(&[5000])];
        assert_eq!(percentile(&minutes, 0.5), Some(Duration::from_millis(5)));
        assert_eq!(percentile(&minutes, 0.75), Some(Duration::from_millis(10)));
        assert_eq!(percentile(&minutes, 0.95), Some(Duration::from_millis(5120)));
        assert_eq!(percentile(&[minute(&[])], 0.5), None);
    }

    #[test]
    fn every_latency_has_a_bucket() {
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::from_millis(6)), 1);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
