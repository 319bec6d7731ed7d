//! Events by the start of their ids.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

/// The least digits that are looked for: fewer match too much.
const LEAST: usize = 8;

/// An event as a search shows it.
#[derive(Debug, Clone, Serialize)]
pub struct FoundEvent {
    /// The id, hex.
    pub id: String,
    /// The author's public key, hex.
    pub pubkey: String,
    /// The kind.
    pub kind: i32,
    /// When it was signed, in Unix seconds.
    pub created_at: i64,
    /// When it was stored.
    pub first_seen_at: DateTime<Utc>,
    /// Why it is no longer served: `replaced`, `deleted` or `expired`.
    pub delete_reason: Option<String>,
}

/// Returns at most `limit` stored events whose id in hex starts with a text of 8 to 64 digits; none for any other
/// text.
pub async fn starting_with(
    db: impl PgExecutor<'_>,
    text: &str,
    limit: i64,
) -> Result<Vec<FoundEvent>, sqlx::Error> {
    let text = text.trim();
    let bound = |fill: &str| {
        hex::decode([text, &fill.repeat(64_usize.saturating_sub(text.len()))].concat())
    };
    let (Ok(first), Ok(last), LEAST..=64) = (bound("0"), bound("f"), text.len()) else {
        return Ok(Vec::new());
    };
    sqlx::query_as!(
        FoundEvent,
        r#"select encode(id, 'hex') as "id!", encode(pubkey, 'hex') as "pubkey!", kind, created_at,
                  first_seen_at, delete_reason
           from event where id between $1 and $2 order by id limit $3"#,
        first,
        last,
        limit,
    )
    .fetch_all(db)
    .await
}
