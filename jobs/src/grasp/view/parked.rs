//! Parked events.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{MOST, are_texts};

/// The parked events of a service with the same reason.
#[derive(Debug, Clone, Serialize)]
pub struct ParkedGroup {
    /// The id of the service.
    pub service_id: Uuid,
    /// The address of the service's relay.
    pub service: String,
    /// The code of the reason.
    pub reason: String,
    /// Their number.
    pub events: i64,
    /// When the first of them was parked.
    pub oldest_at: DateTime<Utc>,
    /// When the last of them was parked.
    pub newest_at: DateTime<Utc>,
}

/// Returns the parked events by service and reason. A service parks at most 200,000 events.
pub async fn parked_groups(db: impl PgExecutor<'_>) -> Result<Vec<ParkedGroup>, sqlx::Error> {
    sqlx::query_as!(
        ParkedGroup,
        r#"select p.upstream_id as service_id, u.url as service, p.reason, count(*) as "events!",
                  min(p.parked_at) as "oldest_at!", max(p.parked_at) as "newest_at!"
           from parked p join upstream u on u.id = p.upstream_id
           group by 1, 2, 3 order by 4 desc, 2, 3"#,
    )
    .fetch_all(db)
    .await
}

/// A parked event.
#[derive(Debug, Clone, Serialize)]
pub struct ParkedRow {
    /// The id of the service.
    pub service_id: Uuid,
    /// The address of the service's relay.
    pub service: String,
    /// The id of the event, hex.
    pub event_id: String,
    /// Its kind.
    pub kind: i32,
    /// Its author, hex.
    pub pubkey: String,
    /// When it was signed, in Unix seconds.
    pub created_at: i64,
    /// The code of the reason.
    pub reason: String,
    /// The reason in words.
    pub detail: String,
    /// The followed relay that delivered it.
    pub relay: Option<String>,
    /// What it waits for; at most ten keys.
    pub waits_for: Vec<String>,
    /// Whether its body is kept; otherwise it is fetched again when it is released.
    pub has_body: bool,
    /// When it was parked.
    pub parked_at: DateTime<Utc>,
    /// When it is forgotten.
    pub expires_at: DateTime<Utc>,
}

impl ParkedRow {
    /// Returns the mark of the page that ends with this event; see [`ParkedSearch::after`].
    pub fn mark(&self) -> String {
        format!("{}/{}", self.expires_at.to_rfc3339(), self.event_id)
    }
}

/// Which parked events are listed, those that are forgotten last first.
#[derive(Debug, Clone, Default)]
pub struct ParkedSearch {
    /// Only those of this service.
    pub service: Option<Uuid>,
    /// Only those with this reason.
    pub reason: Option<String>,
    /// Only those after this expiry and event.
    pub after: Option<(DateTime<Utc>, String)>,
}

impl ParkedSearch {
    /// Returns the expiry and event in a mark; `None` if it is malformed.
    pub fn parse_mark(text: &str) -> Option<(DateTime<Utc>, String)> {
        let (at, id) = text.split_once('/')?;
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some((at.parse().ok()?, is_id.then(|| id.to_owned())?))
    }
}

/// Returns at most `limit` parked events, those that are forgotten last first.
pub async fn parked(
    db: &PgPool,
    search: &ParkedSearch,
    limit: i64,
) -> Result<Vec<ParkedRow>, sqlx::Error> {
    if !are_texts([search.reason.as_deref()]) {
        return Ok(Vec::new());
    }
    let (after_at, after_id) = search.after.clone().unzip();
    sqlx::query_as!(
        ParkedRow,
        r#"select p.upstream_id as "service_id!", u.url as service, encode(p.event_id, 'hex') as "event_id!",
                  p.kind as "kind!", encode(p.pubkey, 'hex') as "pubkey!", p.created_at as "created_at!",
                  p.reason as "reason!", p.detail as "detail!", r.url as "relay?",
                  array(select k.key from parked_key k
                        where (k.upstream_id, k.event_id) = (p.upstream_id, p.event_id) order by k.key limit 10)
                      as "waits_for!",
                  p.has_body as "has_body!", p.parked_at as "parked_at!", p.expires_at as "expires_at!"
           from (select p.upstream_id, p.event_id, p.kind, p.pubkey, p.created_at, p.reason, p.detail, p.relay_id,
                        p.body is not null as has_body, p.parked_at, p.expires_at
                 from parked p
                 where ($1::uuid is null or p.upstream_id = $1) and ($2::text is null or p.reason = $2)
                   and ($3::timestamptz is null or (p.expires_at, p.event_id) < ($3, decode($4, 'hex')))
                 order by p.expires_at desc, p.event_id desc limit $5) p
           join upstream u on u.id = p.upstream_id left join grasp_relay r on r.id = p.relay_id
           order by p.expires_at desc, p.event_id desc"#,
        search.service,
        search.reason.as_deref(),
        after_at,
        after_id,
        limit.min(MOST),
    )
    .fetch_all(db)
    .await
}
