//! Outcomes of SyncRelay attempts per minute, for charts and percentiles. Each process adds its
//! counts every second, so a process that is killed loses the counts of its last second. No
//! decision depends on these numbers.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

/// The number of latency buckets. Bucket i, from 0, ends at 5 ms × 2^i; the last one has no upper
/// end and begins at about 22 min.
pub const BUCKETS: usize = 20;
/// The end of the first bucket, in milliseconds.
const FIRST_MS: u64 = 5;

/// The counts of one process since it last stored them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts that succeeded.
    pub synced: i64,
    /// Failed attempts that have a retry.
    pub failed: i64,
    /// Failed attempts after which the relay gave up.
    pub gave_up: i64,
    /// Successes by latency, the time from the relay's change to the stored outcome; one count per
    /// bucket.
    pub latency: [i64; BUCKETS],
}

/// The counts of all processes in one minute.
#[derive(Debug, Clone, Serialize)]
pub struct Minute {
    /// Start of the minute.
    pub minute: DateTime<Utc>,
    /// Attempts that succeeded.
    pub synced: i64,
    /// Attempts that failed, with or without a retry.
    pub failed: i64,
    /// Successes by latency; see [`BUCKETS`]. Empty for a minute without counts.
    #[serde(skip)]
    pub latency: Vec<i64>,
}

impl Counts {
    /// Counts a success with its latency.
    pub fn add_synced(&mut self, latency: Duration) {
        self.synced += 1;
        self.latency[bucket(latency)] += 1;
    }
}

fn bucket(latency: Duration) -> usize {
    let ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
    (0..BUCKETS - 1).find(|bucket| ms <= FIRST_MS << bucket).unwrap_or(BUCKETS - 1)
}

/// Returns the latency that `share` (0 to 1) of the successes did not exceed, rounded up to the end
/// of its bucket; `None` without successes.
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

/// Adds counts to the current minute. If this fails, no count was added and the caller may retry.
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

/// Returns the last `minutes` minutes, oldest first. Minutes without counts are included as zeros.
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

/// Deletes the minutes that are older than seven days. Returns the number of deleted rows.
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
