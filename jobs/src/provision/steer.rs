//! Retrying and cancelling SyncRelay jobs. The relay is the subject: a retry gives it a new generation
//! and a new job, and a cancelled job marks it as given up.

use std::collections::HashSet;

use serde_json::json;
use sqlx::{PgConnection, PgPool};

use super::{
    SYNC_RELAY, SyncPayload,
    activity::{self, ActivityType},
    relay::{self, By, MutationError, RelayId},
};
use crate::queue::{self, JobDetail, Matching, Walk, one_line};

/// Attempts to request a page of relays while other jobs take their keys.
const TRIES: u32 = 5;

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

/// Requests a sync of the relays of matching jobs, page by page, and returns how many. A relay that is in
/// step is left alone, and one with several matching jobs is requested once.
pub(crate) async fn retry_matching(
    db: &PgPool,
    matching: &Matching,
    by: &By,
) -> Result<usize, sqlx::Error> {
    if matching.queue.as_deref().is_some_and(|queue| queue != SYNC_RELAY) {
        return Ok(0);
    }
    let mut requested = HashSet::new();
    let mut retried = 0;
    let mut walk = Walk::new(SYNC_RELAY, matching);
    while let Some(page) = walk.next(db).await? {
        let mut relays = relays_of(db, &page).await?;
        relays.retain(|relay| requested.insert(relay.clone()));
        retried += request_page(db, &relays, by).await?;
        queue::mark_seen(db, &page).await?;
    }
    Ok(retried)
}

/// Requests the relays of a page in one transaction. If another job takes the key of one of them meanwhile,
/// the transaction is repeated and finds it.
pub(super) async fn request_page(
    db: &PgPool,
    relays: &[RelayId],
    by: &By,
) -> Result<usize, sqlx::Error> {
    let mut left = TRIES;
    loop {
        left -= 1;
        match relay::request_all(db, relays, by).await {
            Err(sqlx::Error::Database(error)) if left > 0 && error.is_unique_violation() => {}
            requested => return requested,
        }
    }
}

/// Returns the relays of these jobs that are not in step.
async fn relays_of(db: &PgPool, jobs: &[String]) -> Result<Vec<RelayId>, sqlx::Error> {
    let payloads = sqlx::query_scalar!("select job from apalis.jobs where id = any($1)", jobs)
        .fetch_all(db)
        .await?;
    let ids = payloads.iter().filter_map(|payload| SyncPayload::parse(payload).ok());
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
         set sync_error = $2, failure_kind = 'permanent', exhausted_at = now(), retry_at = null,
             outage_instance = null
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
