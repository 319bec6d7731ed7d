//! What a lane's job reads before it starts, in one statement: the deployment's settings, and the upstream with what
//! is known of it. A lane that has nothing new to do should cost little.

use sqlx::PgExecutor;
use uuid::Uuid;

use super::{
    deployment::Deployment,
    upstream::{Direction, Learned, Upstream},
};

/// What a job knows before it claims its lane.
#[derive(Debug)]
pub struct Briefing {
    /// The deployment's settings.
    pub deployment: Deployment,
    /// The upstream of the lane.
    pub upstream: Upstream,
    /// The facts known of the upstream.
    pub learned: Learned,
    /// Whether its NIP-11 document was not requested within the last day.
    pub wants_information: bool,
}

/// Reads what a job of this lane must know; `None` if the lane or its upstream is gone, or has retired.
///
/// # Errors
/// The database is unreachable.
pub async fn briefing(
    db: impl PgExecutor<'_>,
    lane: Uuid,
) -> Result<Option<Briefing>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select u.id, url, enabled, u.backfill, negentropy, live, direction as "direction: Direction",
                  notes, u.config, relay_id, allow_private, mirrored, admission, negentropy_verdict,
                  negentropy_verdict_until, negentropy_reason, information, information_at, authors_only_at,
                  authors_only_reason, u.created_at, u.updated_at, page_cap, page_cap_at, negentropy_cap,
                  negentropy_cap_at, exclusive_until_at,
                  coalesce(information_at < now() - interval '1 day', true) as "wants_information!",
                  d.config as "deployment?", d.profile as "profile?"
           from lane join upstream u on u.id = lane.upstream_id left join mirror_setting d on true
           where lane.id = $1 and lane.retired_at is null and u.removing_at is null"#,
        lane,
    );
    let Some(row) = row.fetch_optional(db).await? else { return Ok(None) };
    let upstream = Upstream {
        id: row.id,
        url: row.url,
        enabled: row.enabled,
        backfill: row.backfill,
        negentropy: row.negentropy,
        live: row.live,
        direction: row.direction,
        notes: row.notes,
        config: row.config,
        relay_id: row.relay_id,
        allow_private: row.allow_private,
        mirrored: row.mirrored,
        admission: row.admission,
        negentropy_verdict: row.negentropy_verdict,
        negentropy_verdict_until: row.negentropy_verdict_until,
        negentropy_reason: row.negentropy_reason,
        information: row.information,
        information_at: row.information_at,
        authors_only_at: row.authors_only_at,
        authors_only_reason: row.authors_only_reason,
        created_at: row.created_at,
        updated_at: row.updated_at,
    };
    let learned = Learned {
        page_cap: row.page_cap,
        page_cap_at: row.page_cap_at,
        negentropy_cap: row.negentropy_cap,
        negentropy_cap_at: row.negentropy_cap_at,
        exclusive_until_at: row.exclusive_until_at,
    };
    let deployment = Deployment::of(row.deployment.zip(row.profile));
    let wants_information = row.wants_information;
    Ok(Some(Briefing { deployment, upstream, learned, wants_information }))
}
