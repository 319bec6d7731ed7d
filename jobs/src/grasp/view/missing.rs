//! Items that followed relays have not delivered, each with the reason and the next attempt.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::grasp::{
    coverage::filters::{self, Bounds, Unusable},
    family::Family,
};

/// An item that a followed relay has not delivered.
#[derive(Debug, Clone, Serialize)]
pub struct MissingRow {
    /// The address of the relay.
    pub url: String,
    /// The id of the relay.
    pub relay_id: Uuid,
    /// The family of the item.
    pub family: String,
    /// The item.
    pub item: String,
    /// `missing` or `in_flight`.
    pub state: String,
    /// Failed attempts since it was last confirmed.
    pub attempts: i32,
    /// Why the last one failed, or why none can succeed.
    pub reason: Option<String>,
    /// When the next attempt is due; `None` while the item is in flight, and if no attempt can succeed.
    pub retry_at: Option<DateTime<Utc>>,
    /// Since when it is wanted.
    pub wanted_at: DateTime<Utc>,
}

/// A row of the view, before the filters are asked whether they can name its item.
struct Found {
    url: String,
    relay_id: Uuid,
    family: String,
    item: String,
    state: String,
    attempts: i32,
    reason: Option<String>,
    retry_at: Option<DateTime<Utc>>,
    wanted_at: DateTime<Utc>,
    max_message_length: Option<Value>,
}

impl Found {
    /// Returns why no filter can name the item within the relay's bounds; `None` if one can.
    fn problem(&self) -> Option<Unusable> {
        let bounds = json!({ "max_message_length": self.max_message_length });
        let (family, item) = (Family::parse(&self.family)?, std::slice::from_ref(&self.item));
        filters::of(family, item, Bounds::of(Some(&bounds))).unusable.pop()
    }
}

impl From<Found> for MissingRow {
    fn from(found: Found) -> Self {
        let problem = found.problem();
        let Found { url, relay_id, family, item, state, attempts, wanted_at, .. } = found;
        let is_final = problem.as_ref().is_some_and(|problem| problem.is_final);
        let retry_at = found.retry_at.filter(|_| !is_final);
        let reason = found.reason.or(problem.map(|problem| problem.reason));
        Self { url, relay_id, family, item, state, attempts, reason, retry_at, wanted_at }
    }
}

/// Returns at most `limit` items that a followed relay has not delivered, the oldest first.
pub async fn missing(
    db: impl PgExecutor<'_>,
    relay: Uuid,
    limit: i64,
) -> Result<Vec<MissingRow>, sqlx::Error> {
    let found = sqlx::query_as!(
        Found,
        r#"select url as "url!", relay_id as "relay_id!", family as "family!", item as "item!", state as "state!",
                  attempts as "attempts!", reason, retry_at, wanted_at as "wanted_at!", max_message_length
           from grasp_missing where relay_id = $1 order by wanted_at, family, item limit $2"#,
        relay,
        limit,
    );
    Ok(found.fetch_all(db).await?.into_iter().map(MissingRow::from).collect())
}

/// Returns at most `limit` items of a repository that are not confirmed, the oldest first.
pub async fn missing_of(
    db: impl PgExecutor<'_>,
    service: Uuid,
    address: &str,
    limit: i64,
) -> Result<Vec<MissingRow>, sqlx::Error> {
    let found = sqlx::query_as!(
        Found,
        r#"select m.url as "url!", m.relay_id as "relay_id!", m.family as "family!", m.item as "item!",
                  m.state as "state!", m.attempts as "attempts!", m.reason, m.retry_at,
                  m.wanted_at as "wanted_at!", m.max_message_length
           from grasp_repo_relay n join grasp_relay r on r.url = n.url
           join grasp_repo_item i on (i.upstream_id, i.address) = (n.upstream_id, n.address)
           join grasp_missing m on (m.relay_id, m.family, m.item) = (r.id, i.family, i.item)
           where n.upstream_id = $1 and n.address = $2
           order by m.wanted_at, m.url, m.family, m.item limit $3"#,
        service,
        address,
        limit,
    );
    Ok(found.fetch_all(db).await?.into_iter().map(MissingRow::from).collect())
}
