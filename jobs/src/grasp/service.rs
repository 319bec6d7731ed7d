//! Services: relays of ours that host repositories.
//!
//! - `create`, `update`: adding and changing a service. `start`: the relays that it starts from.
//! - `fields`: what an operator sets. `check`: the rules of each field. `conflicts`: those between fields.
//! - `scan`: judges the events of the store. `remove`: removes a service, page by page.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

mod check;
mod conflicts;
mod create;
mod fields;
mod remove;
mod scan;
mod start;
mod update;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

pub use create::create;
pub use fields::{NewService, ServiceChange};
pub use remove::{delete, remove_page};
pub use scan::{ScanPage, scan_page};
pub use update::update;

use super::{address, work::Work};
use crate::{mirror::upstream::UpstreamUrl, queue};

/// The row of a service.
#[derive(Debug, Clone, Serialize)]
pub struct Service {
    /// The id of the service, and of the upstream that is its relay.
    pub id: Uuid,
    /// The address of its relay.
    pub url: String,
    /// The hosts by which announcements mean it; with a port unless it is the scheme's.
    pub names: Vec<String>,
    /// The relays that it starts from.
    pub bootstrap: Vec<String>,
    /// Whether it judges events and wants relays to be followed.
    pub enabled: bool,
    /// The operator's rules; see [`Policy`](super::policy::Policy).
    pub policy: Value,
    /// Grows with each change of names or policy.
    pub policy_rev: i64,
    /// The relays that are followed for one announcement, at most.
    pub max_relays_per_announcement: i32,
    /// The relays that are followed in total, at most.
    pub max_relays: i32,
    /// Relays that announcements name beyond this limit.
    pub relays_over_limit: i32,
    /// The events of the store were judged up to this position, under the policy `scan_rev`.
    pub scan_position: i64,
    /// See `scan_position`.
    pub scan_rev: i64,
    /// Since when the relay is known to refuse what others than the sender signed.
    pub authors_only_at: Option<DateTime<Utc>>,
    /// The relay's message when it did.
    pub authors_only_reason: Option<String>,
    /// Whether the mirror fetches what its relay publishes.
    pub has_feed: bool,
    /// Whether the mirror uploads accepted events to its relay.
    pub has_uploads: bool,
    /// Since when it is being removed.
    pub removing_at: Option<DateTime<Utc>>,
    /// Time of creation, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// Time of the last change by an operator.
    pub updated_at: DateTime<Utc>,
}

/// Why a service was not added or changed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Fields violate their rules; each message names its field.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// The relay is a service already.
    #[error("Url is a service already; `tender grasp update` changes it")]
    Taken,
    /// The relay, or its service, is being removed.
    #[error(
        "Url is being removed; add it again when `tender grasp list` does not show it any more"
    )]
    BeingRemoved,
    /// The service does not exist.
    #[error("the service does not exist; `tender grasp list` lists the services")]
    NotFound,
    /// The database is unreachable or refused a statement.
    #[error("could not store the service")]
    Database(#[from] sqlx::Error),
}

/// The most services that [`list`] returns.
pub const MAX_LISTED: i64 = 1000;

/// Returns every service by address, those that are being removed included; at most [`MAX_LISTED`].
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Service>, sqlx::Error> {
    sqlx::query_as!(
        Service,
        r#"select s.upstream_id as id, u.url, s.names, s.enabled, s.policy, s.policy_rev,
                  array(select b.url from grasp_bootstrap b where b.upstream_id = s.upstream_id
                        order by b.url) as "bootstrap!",
                  s.max_relays_per_announcement, s.max_relays, s.relays_over_limit, s.scan_position, s.scan_rev,
                  u.authors_only_at, u.authors_only_reason,
                  u.enabled and (u.live or u.backfill) and u.direction <> 'up' as "has_feed!",
                  u.enabled and u.direction <> 'down' as "has_uploads!", s.removing_at, s.created_at, s.updated_at
           from grasp_service s join upstream u on u.id = s.upstream_id
           order by u.url limit $1"#,
        MAX_LISTED,
    )
    .fetch_all(db)
    .await
}

/// Returns the service with this id, address or host; `None` if there is none. The address need not be
/// in its normal form.
pub async fn find(db: &PgPool, name: &str) -> Result<Option<Service>, sqlx::Error> {
    let id: Option<Uuid> = name.parse().ok();
    let url = UpstreamUrl::parse(name).ok();
    let is_meant = |service: &Service| {
        Some(service.id) == id
            || url.as_ref().is_some_and(|url| url.as_str() == service.url)
            || service.names.iter().any(|host| host == name)
            || address::host_of(&service.url).is_some_and(|host| host == name)
    };
    Ok(list(db).await?.into_iter().find(is_meant))
}

/// Enqueues the work of services that has no job: scans of events that came since the last one, released
/// events, and removals. Returns how many jobs were enqueued.
pub async fn resume(db: &PgPool) -> Result<usize, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select s.upstream_id, s.removing_at is not null as "is_removing!",
                  s.enabled and (s.scan_rev <> s.policy_rev
                      or s.scan_position < coalesce((select max(position) from event), 0)) as "scans!",
                  s.enabled and (exists (select from grasp_release r where r.upstream_id = s.upstream_id)
                                 or exists (select from grasp_wake w where w.upstream_id = s.upstream_id))
                      as "releases!"
           from grasp_service s order by s.upstream_id"#
    )
    .fetch_all(db)
    .await?;
    let mut jobs = Vec::new();
    for row in rows {
        let service = row.upstream_id;
        if row.is_removing {
            jobs.push(Work::RemoveService { service }.job());
            continue;
        }
        jobs.extend(row.scans.then(|| Work::Scan { service }.job()));
        jobs.extend(row.releases.then(|| Work::Release { service }.job()));
    }
    if jobs.is_empty() { Ok(0) } else { Ok(queue::enqueue(db, &jobs).await?.len()) }
}
