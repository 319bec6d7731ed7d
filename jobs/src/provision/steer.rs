//! Retrying and cancelling SyncRelay jobs. The relay is the subject: a retry gives it a new generation
//! and a new job, and a cancelled job marks it as given up.

use serde_json::json;
use sqlx::{PgConnection, PgPool};

use super::{
    SYNC_RELAY, SyncPayload,
    activity::{self, ActivityType},
    relay::{self, By, MutationError, RelayId},
};
use crate::queue::{self, JobDetail, Matching, one_line};

/// The most jobs that one call retries.
const MOST: i64 = 10_000;
/// Relays that one transaction requests.
const PAGE: usize = 500;

/// Returns the relay of a SyncRelay job whose payload is readable.
pub(crate) fn relay_of(job: &JobDetail) -> Option<RelayId> {
    if job.summary.queue != SYNC_RELAY {
        return None;
    }
    SyncPayload::parse(job.payload.as_bytes()).map(|payload| payload.relay_id).ok()
}

/// Requests a sync of a killed job's relay.
pub(crate) async fn retry(
    db: &PgPool,
    job_id: &str,
    relay_id: &RelayId,
    by: &By,
) -> Result<(), MutationError> {
    relay::request_sync(db, relay_id, by).await?;
    queue::mark_seen(db, &[job_id.to_owned()]).await?;
    Ok(())
}

/// Requests a sync of the relays of matching jobs, and returns how many. A relay that is in step is left
/// alone, and one with several matching jobs is requested once.
pub(crate) async fn retry_matching(
    db: &PgPool,
    matching: &Matching,
    by: &By,
) -> Result<usize, sqlx::Error> {
    if matching.queue.as_deref().is_some_and(|queue| queue != SYNC_RELAY) {
        return Ok(0);
    }
    let mut retried = 0;
    for page in matching_relays(db, matching).await?.chunks(PAGE) {
        retried += relay::request_all(db, page, by).await?;
    }
    Ok(retried)
}

async fn matching_relays(db: &PgPool, matching: &Matching) -> Result<Vec<RelayId>, sqlx::Error> {
    let jobs = sqlx::query!(
        r#"select id, job as payload from apalis.jobs
           where job_type = $1 and status = any($2)
             and ($3::text is null or strpos(last_result->>'Err', $3) > 0)
           order by done_at limit $4"#,
        SYNC_RELAY,
        &matching.statuses(),
        matching.error,
        MOST,
    )
    .fetch_all(db)
    .await?;
    queue::mark_seen(db, &jobs.iter().map(|job| job.id.clone()).collect::<Vec<_>>()).await?;
    let ids = jobs.iter().filter_map(|job| SyncPayload::parse(&job.payload).ok());
    let ids: Vec<String> = ids.map(|payload| payload.relay_id.as_str().to_owned()).collect();
    sqlx::query_scalar!(
        r#"select id as "id: RelayId" from relay where id = any($1) and not synced order by id"#,
        &ids,
    )
    .fetch_all(db)
    .await
}

/// Marks a cancelled job's relay as given up by the operator, so that reconcile does not bring the job
/// back and the relay stays visible.
pub(crate) async fn give_up(
    tx: &mut PgConnection,
    relay_id: &RelayId,
    job_id: &str,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let reason = one_line(reason);
    let relay = sqlx::query!(
        "update relay
         set sync_error = $2, failure_kind = 'permanent', exhausted_at = now(), retry_at = null
         where id = $1 and not synced
         returning tenant_pubkey, generation",
        relay_id.as_str(),
        reason,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(relay) = relay else {
        return give_up_confirming(tx, relay_id).await;
    };
    let detail = json!({
        "job": job_id, "generation": relay.generation, "error": reason, "kind": "permanent",
        "status": null, "retry_at": null,
    });
    let tenant = &relay.tenant_pubkey;
    activity::append(tx, relay_id, tenant, ActivityType::FailRelaySync, &detail).await
}

/// The cancelled job would have confirmed a relay that is in step; reconcile must not bring it back.
async fn give_up_confirming(tx: &mut PgConnection, relay_id: &RelayId) -> Result<(), sqlx::Error> {
    sqlx::query!("update relay set confirm_at = null where id = $1 and synced", relay_id.as_str(),)
        .execute(tx)
        .await?;
    Ok(())
}
