//! Outcomes of SyncRelay attempts per minute, for charts and percentiles. Each process adds its
//! counts every second, so a process that is killed loses the counts of its last second. No
//! decision depends on these numbers.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

/// The width of a bucket of the summary of latencies: each ends at 1.02 / 0.98 times the end of the one
/// before, so that a percentile is within 2 % of the latency itself.
const WIDTH: f64 = 1.02 / 0.98;
/// The most buckets; the last one begins after a day.
const MOST_BUCKETS: usize = 460;

/// The counts of one process since it last stored them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts that succeeded.
    pub synced: i64,
    /// Failed attempts that have a retry.
    pub failed: i64,
    /// Failed attempts after which the relay gave up.
    pub gave_up: i64,
    /// The summary of the latencies of the successes.
    pub latencies: Latencies,
}

/// A summary of latencies, the times from a relay's change to the stored outcome: counts in buckets, each
/// 1.02 / 0.98 times as long as the one before. Summaries are added bucket by bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latencies(Vec<i64>);

impl From<Vec<i64>> for Latencies {
    /// Takes the counts of the buckets, the shortest first.
    fn from(counts: Vec<i64>) -> Self {
        Self(counts)
    }
}

impl Latencies {
    /// Counts a latency.
    pub fn count(&mut self, latency: Duration) {
        let bucket = bucket(latency);
        self.0.resize(self.0.len().max(bucket + 1), 0);
        self.0[bucket] += 1;
    }

    /// Adds another summary.
    pub fn add(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        for (sum, count) in self.0.iter_mut().zip(&other.0) {
            *sum += count;
        }
    }

    /// Returns the latency that `share` (0 to 1) of the successes did not exceed, within 2 %; `None`
    /// without successes.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let total: i64 = self.0.iter().sum();
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a rank")]
        let rank = ((total as f64 * share).ceil() as i64).max(1);
        let mut seen = 0;
        let reached = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(middle(reached))
    }
}

/// Returns the bucket of a latency.
fn bucket(latency: Duration) -> usize {
    let place = (latency.as_secs_f64() * 1000.0).max(1.0).ln() / WIDTH.ln();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "0 to 460"
    )]
    let bucket = place.ceil().min((MOST_BUCKETS - 1) as f64) as usize;
    bucket
}

/// Returns the latency that differs by the same share from both ends of a bucket.
fn middle(bucket: usize) -> Duration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "0 to 460")]
    let end = WIDTH.powi(bucket as i32);
    Duration::from_secs_f64(2.0 * end / (WIDTH + 1.0) / 1000.0)
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
    /// The summary of the latencies; empty for a minute without counts.
    #[serde(skip)]
    pub latencies: Vec<i64>,
}

impl Counts {
    /// Counts a success with its latency.
    pub fn add_synced(&mut self, latency: Duration) {
        self.synced += 1;
        self.latencies.count(latency);
    }
}

/// Returns the latency that `share` (0 to 1) of the successes in these minutes did not exceed, within 2 %;
/// `None` without successes.
pub fn percentile(minutes: &[Minute], share: f64) -> Option<Duration> {
    let mut sum = Latencies::default();
    for minute in minutes {
        sum.add(&Latencies(minute.latencies.clone()));
    }
    sum.percentile(share)
}

/// Adds counts to the current minute. If this fails, no count was added and the caller may retry.
pub async fn add(db: impl PgExecutor<'_>, counts: &Counts) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into sync_minute as m (minute, synced, failed, gave_up, latency, latencies)
         values (date_trunc('minute', now()), $1, $2, $3, '{}', $4)
         on conflict (minute) do update set
             synced = m.synced + excluded.synced, failed = m.failed + excluded.failed,
             gave_up = m.gave_up + excluded.gave_up,
             latencies = array(select coalesce(a, 0) + coalesce(b, 0)
                               from unnest(m.latencies, excluded.latencies) as u (a, b))",
        counts.synced,
        counts.failed,
        counts.gave_up,
        &counts.latencies.0,
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
                  coalesce(failed + gave_up, 0) as "failed!", coalesce(latencies, '{}') as "latencies!"
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
        let latencies = counts.latencies.0;
        Minute { minute: DateTime::default(), synced: counts.synced, failed: 0, latencies }
    }

    #[test]
    fn percentiles_are_within_two_per_cent_over_all_minutes() {
        let minutes = [minute(&[1, 4, 9]), minute(&[5000])];
        for (share, ms) in [(0.25, 1.0), (0.5, 4.0), (0.75, 9.0), (0.95, 5000.0), (1.0, 5000.0)] {
            let found = percentile(&minutes, share).expect("there are successes").as_secs_f64();
            assert!((found * 1000.0 / ms - 1.0).abs() <= 0.021, "{share}: {found} s, not {ms} ms");
        }
        assert_eq!(percentile(&[minute(&[])], 0.5), None);
    }

    #[test]
    fn percentiles_of_many_latencies_are_those_of_the_latencies_themselves() {
        let all: Vec<u64> = (1..=1000).map(|n| n * n % 7919 + 1).collect();
        let (minutes, mut sorted) = ([minute(&all)], all.clone());
        sorted.sort_unstable();
        for rank in [1, 250, 500, 900, 950, 990, 1000] {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let (share, exact) = (rank as f64 / 1000.0, sorted[rank - 1] as f64);
            let found = percentile(&minutes, share).expect("successes").as_secs_f64() * 1000.0;
            assert!((found / exact - 1.0).abs() <= 0.021, "p{rank}: {found}, not {exact}");
        }
    }

    #[test]
    fn every_latency_has_a_bucket() {
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), MOST_BUCKETS - 1);
        assert!(middle(MOST_BUCKETS - 1) > Duration::from_hours(24));
    }
}
