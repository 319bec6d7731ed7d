//! Sums over the whole wing.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

use super::RelayState;

/// Sums over the whole wing. Their cost grows with the number of followed relays only.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Overview {
    /// Services, without those that are being removed.
    pub services: i64,
    /// Enabled services.
    pub enabled: i64,
    /// Processes that follow relays.
    pub processes: i64,
    /// Followed relays by state.
    pub relays: Vec<(RelayState, i64)>,
    /// Items by family and state.
    pub coverage: Vec<Coverage>,
    /// Open batches.
    pub open_batches: i64,
    /// When the oldest of them began.
    pub oldest_batch_at: Option<DateTime<Utc>>,
    /// Relays that a process holds and that wait for a plan.
    pub outbox: i64,
    /// Since when the longest-waiting of them is due; `None` if none is due.
    pub outbox_due_at: Option<DateTime<Utc>>,
    /// Gaps.
    pub gaps: i64,
    /// Events that wait to be judged again.
    pub releases: i64,
}

/// The items of a family in a state.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// The family.
    pub family: String,
    /// `missing`, `in_flight` or `confirmed`.
    pub state: String,
    /// The number of items, over all relays.
    pub items: i64,
}

impl Overview {
    /// Returns the number of followed relays in a state.
    pub fn relays_in(&self, state: RelayState) -> i64 {
        self.relays.iter().filter(|(of, _)| *of == state).map(|(_, relays)| relays).sum()
    }

    /// Returns the number of followed relays.
    pub fn relays_total(&self) -> i64 {
        self.relays.iter().map(|(_, relays)| relays).sum()
    }

    /// Returns the number of items in a state, over all relays and families.
    pub fn items_in(&self, state: &str) -> i64 {
        self.coverage.iter().filter(|of| of.state == state).map(|of| of.items).sum()
    }
}

/// Reads the sums.
pub async fn overview(db: &PgPool) -> Result<Overview, sqlx::Error> {
    let sums = sqlx::query!(
        r#"select (select count(*) from grasp_service where removing_at is null) as "services!",
                  (select count(*) from grasp_service where removing_at is null and enabled) as "enabled!",
                  (select count(*) from grasp_batch where status = 'open') as "open_batches!",
                  (select min(begun_at) from grasp_batch where status = 'open') as oldest_batch_at,
                  o.outbox as "outbox!", o.due_at as outbox_due_at,
                  (select count(*) from grasp_gap) as "gaps!",
                  (select count(*) from (select from grasp_release limit 100000) waiting) as "releases!"
           from (select count(*) as outbox, min(o.due_at) filter (where o.due_at <= now()) as due_at
                 from grasp_outbox o join grasp_relay r on r.id = o.relay_id where r.lease_until > now()) o"#,
    )
    .fetch_one(db)
    .await?;
    Ok(Overview {
        services: sums.services,
        enabled: sums.enabled,
        processes: processes(db).await?,
        relays: by_state(db).await?,
        coverage: coverage(db).await?,
        open_batches: sums.open_batches,
        oldest_batch_at: sums.oldest_batch_at,
        outbox: sums.outbox,
        outbox_due_at: sums.outbox_due_at,
        gaps: sums.gaps,
        releases: sums.releases,
    })
}

/// Returns the number of processes that follow relays.
pub async fn processes(db: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "processes!" from grasp_process
           where seen_at > now() - interval '30 seconds'"#
    )
    .fetch_one(db)
    .await
}

async fn by_state(db: impl PgExecutor<'_>) -> Result<Vec<(RelayState, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select grasp_relay_state(r) as "state!: RelayState", count(*) as "relays!"
           from grasp_relay r group by 1 order by 1"#
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.state, row.relays)).collect())
}

async fn coverage(db: impl PgExecutor<'_>) -> Result<Vec<Coverage>, sqlx::Error> {
    sqlx::query_as!(
        Coverage,
        r#"select family, state, sum(items)::bigint as "items!" from grasp_coverage_count
           group by 1, 2 order by 1, 2"#
    )
    .fetch_all(db)
    .await
}

/// How often events were decided on in one way, since the service was added.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// The address of the service's relay.
    pub service: String,
    /// `accepted` or `parked`.
    pub outcome: String,
    /// The source of accepted events; the reason for parked ones.
    pub name: String,
    /// Their number.
    pub events: i64,
}

/// Returns the decisions on events by service.
pub async fn decisions(db: impl PgExecutor<'_>) -> Result<Vec<Decision>, sqlx::Error> {
    sqlx::query_as!(
        Decision,
        "select u.url as service, d.outcome, d.name, d.events
         from grasp_decision d join upstream u on u.id = d.upstream_id
         order by u.url, d.outcome, d.name limit 50000"
    )
    .fetch_all(db)
    .await
}
