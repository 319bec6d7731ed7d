//! The services that judge.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::grasp::policy::Policy;

/// A service, as far as it judges.
#[derive(Debug, Clone)]
pub(in crate::grasp) struct Service {
    pub(in crate::grasp) id: Uuid,
    pub(in crate::grasp) url: String,
    /// The hosts by which announcements mean it.
    pub(in crate::grasp) names: Vec<String>,
    pub(in crate::grasp) policy: Policy,
    pub(in crate::grasp) policy_rev: i64,
    pub(in crate::grasp) max_relays_per_announcement: usize,
    pub(in crate::grasp) max_relays: i64,
}

/// Returns the services that are enabled, and the service `own` if it exists at all.
pub(in crate::grasp) async fn services(
    tx: &mut PgConnection,
    own: Option<Uuid>,
) -> Result<Vec<Service>, sqlx::Error> {
    let rows = sqlx::query!(
        "select s.upstream_id, u.url, s.names, s.policy, s.policy_rev, s.max_relays_per_announcement,
                s.max_relays
         from grasp_service s join upstream u on u.id = s.upstream_id
         where s.removing_at is null and (s.enabled or s.upstream_id = $1)
         order by s.upstream_id",
        own,
    )
    .fetch_all(tx)
    .await?;
    let services = rows.into_iter().map(|row| Service {
        id: row.upstream_id,
        url: row.url,
        names: row.names,
        policy: Policy::parse(&row.policy).unwrap_or_default(), // it was checked on write
        policy_rev: row.policy_rev,
        max_relays_per_announcement: usize::try_from(row.max_relays_per_announcement).unwrap_or(1),
        max_relays: i64::from(row.max_relays),
    });
    Ok(services.collect())
}
