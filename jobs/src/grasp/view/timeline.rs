//! What happened to a repository.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use uuid::Uuid;

/// Something that happened to a repository: an event was accepted, or a relay delivered items.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    /// When.
    pub at: DateTime<Utc>,
    /// `accepted` or `confirmed`.
    pub what: String,
    /// The address of the relay that delivered; `None` if none did.
    pub relay: Option<String>,
    /// Accepted: how the event came.
    pub source: Option<String>,
    /// Accepted: the rule.
    pub rule: Option<String>,
    /// Accepted: the id of the event, hex.
    pub event_id: Option<String>,
    /// Accepted: its kind, if it is in the store.
    pub kind: Option<i32>,
    /// Confirmed: the family of the items.
    pub family: Option<String>,
    /// Confirmed: their number.
    pub items: Option<i64>,
}

/// Returns at most `limit` moments of a repository, the latest first.
pub async fn timeline(
    db: impl PgExecutor<'_>,
    service: Uuid,
    address: &str,
    limit: i64,
) -> Result<Vec<Moment>, sqlx::Error> {
    sqlx::query_as!(
        Moment,
        r#"select at as "at!", what as "what!", relay, source, rule, event_id, kind, family, items from (
               (select a.accepted_at as at, 'accepted' as what, r.url as relay, a.source, a.rule,
                       encode(a.event_id, 'hex') as event_id, e.kind, null as family, null::bigint as items
                from (select * from admission where upstream_id = $1 and address = $2
                      order by accepted_at desc limit $3) a
                left join grasp_relay r on r.id = a.relay_id left join event e on e.id = a.event_id)
               union all
               (select c.confirmed_at, 'confirmed', r.url, null, null, null, null, c.family, count(*)
                from grasp_repo_relay n join grasp_relay r on r.url = n.url
                join grasp_repo_item i on (i.upstream_id, i.address) = (n.upstream_id, n.address)
                join grasp_coverage c on (c.relay_id, c.family, c.item) = (r.id, i.family, i.item)
                where n.upstream_id = $1 and n.address = $2 and c.confirmed_at is not null
                group by c.confirmed_at, r.url, c.family order by c.confirmed_at desc limit $3)
           ) moment order by at desc, what, relay, family, event_id limit $3"#,
        service,
        address,
        limit,
    )
    .fetch_all(db)
    .await
}
