//! What the charts show: counts of attempts, latencies and events per slot of time, and marks of what may
//! explain them. The rows are kept for seven days; see [`prune`].
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;

use super::stats::Latencies;

/// The most marks of a chart, the last ones.
const MOST_MARKS: i64 = 200;

/// The time that a chart covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Range {
    /// 60 slots of a minute.
    #[default]
    #[serde(rename = "1h")]
    Hour,
    /// 144 slots of ten minutes.
    #[serde(rename = "24h")]
    Day,
    /// 168 slots of an hour.
    #[serde(rename = "7d")]
    Week,
}

impl Range {
    /// All ranges, the shortest first.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// The name in addresses: `1h`, `24h`, `7d`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    /// The length of a slot.
    pub const fn step(self) -> Duration {
        Duration::from_mins(match self {
            Self::Hour => 1,
            Self::Day => 10,
            Self::Week => 60,
        })
    }

    /// The number of slots.
    pub const fn slots(self) -> i32 {
        match self {
            Self::Hour => 60,
            Self::Day => 144,
            Self::Week => 168,
        }
    }
}

/// What happened in a slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slot {
    /// The start of the slot.
    pub at: DateTime<Utc>,
    /// Attempts that succeeded.
    pub synced: i64,
    /// Attempts that failed, with or without a retry.
    pub failed: i64,
    /// The time from a change to its sync that half of the successes did not exceed, within 2 %.
    pub p50: Option<Duration>,
    /// The same for 95 % of the successes.
    pub p95: Option<Duration>,
    /// Events that were stored.
    pub stored: i64,
    /// Events that were rejected.
    pub rejected: i64,
}

/// What may explain a change in a chart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// When it happened.
    pub at: DateTime<Utc>,
    /// `paused`, `resumed`, `breaker_opened`, `breaker_closed` or `started`.
    pub kind: String,
    /// The queue, the zooid instance, or the process.
    pub subject: String,
}

/// The content of the charts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Charts {
    /// The slots, the oldest first. The last one is not over.
    pub slots: Vec<Slot>,
    /// The last 200 marks since the first slot, the oldest first.
    pub marks: Vec<Mark>,
}

/// Returns the charts of a range. Reads at most 10,080 rows of each table of minutes.
pub async fn read(db: &sqlx::PgPool, range: Range) -> Result<Charts, sqlx::Error> {
    let slots = slots(db, range).await?;
    let marks = match slots.first() {
        Some(first) => marks(db, first.at).await?,
        None => Vec::new(),
    };
    Ok(Charts { slots, marks })
}

async fn slots(db: impl PgExecutor<'_>, range: Range) -> Result<Vec<Slot>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"with slot as materialized (
               select at, at + make_interval(secs => $1) as ends
               from generate_series(date_bin(make_interval(secs => $1), now(), 'epoch')
                                        - make_interval(secs => $1) * ($2 - 1),
                                    now(), make_interval(secs => $1)) at),
           sync as (
               select at, sum(synced)::bigint as synced, sum(failed + gave_up)::bigint as failed
               from slot join sync_minute on minute >= at and minute < ends group by at),
           latency as (
               select at, array_agg(successes order by bucket) as latencies
               from (select at, bucket, sum(successes)::bigint as successes
                     from slot join sync_minute on minute >= at and minute < ends,
                          unnest(latencies) with ordinality as u (successes, bucket)
                     group by at, bucket) summed
               group by at),
           ingest as (
               select at, sum(stored)::bigint as stored, sum(rejected)::bigint as rejected
               from slot join ingest_minute on minute >= at and minute < ends group by at)
           select at as "at!", coalesce(synced, 0) as "synced!", coalesce(failed, 0) as "failed!",
                  coalesce(latencies, '{}') as "latencies!",
                  coalesce(stored, 0) as "stored!", coalesce(rejected, 0) as "rejected!"
           from slot left join sync using (at) left join latency using (at) left join ingest using (at)
           order by at"#,
        range.step().as_secs_f64(),
        range.slots(),
    )
    .fetch_all(db)
    .await?;
    let slots = rows.into_iter().map(|row| {
        let latencies = Latencies::from(row.latencies);
        Slot {
            at: row.at,
            synced: row.synced,
            failed: row.failed,
            p50: latencies.percentile(0.5),
            p95: latencies.percentile(0.95),
            stored: row.stored,
            rejected: row.rejected,
        }
    });
    Ok(slots.collect())
}

async fn marks(db: impl PgExecutor<'_>, since: DateTime<Utc>) -> Result<Vec<Mark>, sqlx::Error> {
    let mut marks = sqlx::query_as!(
        Mark,
        r#"select at, kind, subject as "subject: String" from chart_mark
           where at >= $1 order by at desc, id desc limit $2"#,
        since,
        MOST_MARKS,
    )
    .fetch_all(db)
    .await?;
    marks.reverse();
    Ok(marks)
}

/// Deletes marks that are older than seven days, and all but the last 10,000. Returns the number of deleted
/// rows.
pub async fn prune(db: impl PgExecutor<'_>) -> Result<u64, sqlx::Error> {
    let pruned = sqlx::query!(
        "delete from chart_mark
         where at < now() - interval '7 days'
            or id <= (select id from chart_mark order by id desc offset 10000 limit 1)"
    );
    Ok(pruned.execute(db).await?.rows_affected())
}
