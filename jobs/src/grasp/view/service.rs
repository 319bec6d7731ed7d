//! Services.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{grasp::address, mirror::upstream::UpstreamUrl};

/// A service with its sums.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct ServiceRow {
    /// The id of the service and of its upstream.
    pub id: Uuid,
    /// The address of its relay.
    pub url: String,
    /// The hosts by which announcements mean it.
    pub names: Vec<String>,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Since when it is being removed.
    pub removing_at: Option<DateTime<Utc>>,
    /// Whether its relay may have an address that is not public.
    pub allow_private: bool,
    /// The relays that it starts from.
    pub bootstrap: Vec<String>,
    /// The rules of admission.
    pub policy: Value,
    /// The most relays that are followed for one announcement.
    pub max_relays_per_announcement: i32,
    /// The most relays that are followed for it in total.
    pub max_relays: i32,
    /// Relays that announcements name beyond `max_relays`.
    pub relays_over_limit: i32,
    /// Relays that are followed for it.
    pub relays: i64,
    /// Its repositories, without those that left it.
    pub repositories: i64,
    /// Events that it accepted since it was added.
    pub accepted: i64,
    /// Its relay's words when it refused an event that others had signed; `None` if it takes such events.
    pub refuses_others: Option<String>,
    /// Whether the mirror fetches what its relay publishes.
    pub has_feed: bool,
    /// Whether the mirror uploads accepted events to its relay.
    pub has_uploads: bool,
    /// Whether the store has been judged under its present names and policy.
    pub is_scanned: bool,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// Returns every service, in the order of addresses.
pub async fn services(db: &PgPool) -> Result<Vec<ServiceRow>, sqlx::Error> {
    sqlx::query_as!(
        ServiceRow,
        r#"select s.upstream_id as id, u.url, s.names, s.enabled, s.removing_at, u.allow_private,
                  array(select b.url from grasp_bootstrap b where b.upstream_id = s.upstream_id order by 1) as "bootstrap!",
                  s.policy, s.max_relays_per_announcement, s.max_relays, s.relays_over_limit,
                  (select count(*) from grasp_relay r where exists (
                      select from grasp_repo_relay n where n.url = r.url and n.upstream_id = s.upstream_id)) as "relays!",
                  (select count(*) from grasp_repo g where g.upstream_id = s.upstream_id and g.left_at is null) as "repositories!",
                  (select coalesce(sum(d.events), 0)::bigint from grasp_decision d
                   where d.upstream_id = s.upstream_id and d.outcome = 'accepted') as "accepted!",
                  u.authors_only_reason as refuses_others,
                  u.enabled and (u.live or u.backfill) and u.direction <> 'up' as "has_feed!",
                  u.enabled and u.direction <> 'down' as "has_uploads!",
                  s.scan_rev = s.policy_rev as "is_scanned!", s.created_at
           from grasp_service s join upstream u on u.id = s.upstream_id order by u.url limit 1000"#,
    )
    .fetch_all(db)
    .await
}

/// Returns the service with this id, address or host; `None` if it does not exist. The address need not be
/// in its normal form.
pub async fn service(db: &PgPool, name: &str) -> Result<Option<ServiceRow>, sqlx::Error> {
    let id: Option<Uuid> = name.parse().ok();
    let url = UpstreamUrl::parse(name).ok();
    let is_meant = |one: &ServiceRow| {
        Some(one.id) == id
            || url.as_ref().is_some_and(|url| url.as_str() == one.url)
            || one.names.iter().any(|host| host == name)
            || address::host_of(&one.url).is_some_and(|host| host == name)
    };
    Ok(services(db).await?.into_iter().find(is_meant))
}
