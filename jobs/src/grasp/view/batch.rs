//! What is fetched from a followed relay: batches and gaps.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use uuid::Uuid;

/// A batch.
#[derive(Debug, Clone, Serialize)]
pub struct BatchRow {
    /// The id of the row.
    pub id: i64,
    /// The family of its items.
    pub family: String,
    /// Why it is fetched.
    pub purpose: String,
    /// The number of its items.
    pub items: i32,
    /// How: `pages` or `negentropy`; `None` before it has begun.
    pub method: Option<String>,
    /// `open`, `done` or `failed`.
    pub status: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// Pages, or rounds of negentropy.
    pub pages: i32,
    /// Events received.
    pub received: i64,
    /// Received events that were stored.
    pub stored: i64,
    /// When it began.
    pub begun_at: DateTime<Utc>,
    /// When it ended; `None` while it is open.
    pub ended_at: Option<DateTime<Utc>>,
}

/// Returns at most `limit` batches of a followed relay, the latest first.
pub async fn batches(
    db: impl PgExecutor<'_>,
    relay: Uuid,
    limit: i64,
) -> Result<Vec<BatchRow>, sqlx::Error> {
    sqlx::query_as!(
        BatchRow,
        "select id, family, purpose, items, method, status, reason, pages, received, stored, begun_at, ended_at
         from grasp_batch where relay_id = $1 order by begun_at desc, id desc limit $2",
        relay,
        limit,
    )
    .fetch_all(db)
    .await
}

/// A part of a relay's history that it did not show.
#[derive(Debug, Clone, Serialize)]
pub struct GapRow {
    /// The family of the filter's items.
    pub family: String,
    /// The first item of the filter.
    pub item: String,
    /// The number of its items.
    pub items: i32,
    /// The first second, in Unix seconds.
    pub since: i64,
    /// The last second.
    pub until: i64,
    /// Why.
    pub reason: String,
    /// When it was found.
    pub first_seen_at: DateTime<Utc>,
    /// When it was last confirmed.
    pub seen_at: DateTime<Utc>,
}

/// Returns at most `limit` gaps of a followed relay, the latest first.
pub async fn gaps(
    db: impl PgExecutor<'_>,
    relay: Uuid,
    limit: i64,
) -> Result<Vec<GapRow>, sqlx::Error> {
    sqlx::query_as!(
        GapRow,
        "select family, item, items, since, until, reason, first_seen_at, seen_at
         from grasp_gap where relay_id = $1 order by seen_at desc, family, item, since limit $2",
        relay,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The ended batches of a followed relay.
#[derive(Debug, Clone, Serialize)]
pub struct BatchCount {
    /// The address of the relay.
    pub url: String,
    /// Why they were fetched.
    pub purpose: String,
    /// How: `pages` or `negentropy`; empty if they ended before they began to fetch.
    pub method: String,
    /// `done` or `failed`.
    pub outcome: String,
    /// Their number.
    pub batches: i64,
    /// Pages, or rounds of negentropy.
    pub pages: i64,
}

/// Returns the counts of ended batches of every followed relay.
pub async fn batch_counts(db: impl PgExecutor<'_>) -> Result<Vec<BatchCount>, sqlx::Error> {
    sqlx::query_as!(
        BatchCount,
        "select r.url, c.purpose, c.method, c.outcome, c.batches, c.pages
         from grasp_batch_count c join grasp_relay r on r.id = c.relay_id
         order by r.url, c.purpose, c.method, c.outcome limit 200000",
    )
    .fetch_all(db)
    .await
}
