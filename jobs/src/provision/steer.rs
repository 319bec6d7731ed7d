//! Retrying and cancelling SyncRelay jobs. The relay is the subject: a retry gives it a new generation
//! and a new job, and a cancelled job marks it as given up.

use std::collections::{HashMap, HashSet};

use serde_json::json;
use sqlx::{PgConnection, PgPool};

use super::{
    SYNC_RELAY, SyncPayload,
    activity::{self, ActivityType},
    relay::{self, By, MutationError, RelayId},
};
use crate::queue::{self, JobDetail, one_line};

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

/// Requests a sync of the relays of a page of killed and retrying jobs, and returns how many. A relay that is in
/// step is left alone, and so is one in `requested`, to which the others are added.
pub(crate) async fn retry_page(
    tx: &mut PgConnection,
    jobs: &[String],
    requested: &mut HashSet<RelayId>,
    by: &By,
) -> Result<usize, sqlx::Error> {
    let mut relays = relays_of(&mut *tx, jobs).await?;
    relays.retain(|relay| requested.insert(relay.clone()));
    let retried = request_page(&mut *tx, &relays, by).await?;
    queue::mark_seen(tx, jobs).await?;
    Ok(retried)
}

/// Requests the relays of a page in one transaction or within the caller's. If another job takes the key of one of them meanwhile,
/// the transaction is repeated and finds it.
pub(super) async fn request_page(
    db: &mut PgConnection,
    relays: &[RelayId],
    by: &By,
) -> Result<usize, sqlx::Error> {
    let mut left = TRIES;
    loop {
        left -= 1;
        match relay::request_all(&mut *db, relays, by).await {
            Err(sqlx::Error::Database(error)) if left > 0 && error.is_unique_violation() => {}
            requested => return requested,
        }
    }
}

/// Returns the relays of those of these jobs that are killed or retrying, if they are not in step.
async fn relays_of(tx: &mut PgConnection, jobs: &[String]) -> Result<Vec<RelayId>, sqlx::Error> {
    let payloads = sqlx::query_scalar!(
        "select job from apalis.jobs where id = any($1) and status in ('Killed', 'Failed')",
        jobs,
    )
    .fetch_all(&mut *tx)
    .await?;
    let ids = payloads.iter().filter_map(|payload| SyncPayload::parse(payload).ok());
    let ids: Vec<String> = ids.map(|payload| payload.relay_id.as_str().to_owned()).collect();
    sqlx::query_scalar!(
        r#"select id as "id: RelayId" from relay where id = any($1) and not synced order by id"#,
        &ids,
    )
    .fetch_all(tx)
    .await
}

/// Cancels jobs, and marks their relays as given up by the operator, so that reconcile does not bring the jobs
/// back and the relays stay visible. Returns the ids of the jobs that were cancelled. The relays are locked before
/// the jobs, as every change of a relay does.
pub(crate) async fn cancel(
    tx: &mut PgConnection,
    jobs: &[String],
    reason: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let relays: HashMap<String, String> = relays_by_job(tx, jobs).await?;
    let ids: Vec<String> = relays.values().cloned().collect();
    sqlx::query!("select from relay where id = any($1) order by id for update", &ids)
        .execute(&mut *tx)
        .await?;
    let cancelled = queue::cancel(&mut *tx, jobs, reason).await?;
    for job in &cancelled {
        if let Some(relay) = relays.get(job) {
            give_up(tx, relay, job, reason).await?;
        }
    }
    Ok(cancelled)
}

/// Returns the relays of jobs whose payload is readable, by the job's id.
async fn relays_by_job(
    tx: &mut PgConnection,
    jobs: &[String],
) -> Result<HashMap<String, String>, sqlx::Error> {
    let rows = sqlx::query!(
        "select id, job from apalis.jobs where id = any($1) and job_type = $2",
        jobs,
        SYNC_RELAY
    );
    let rows = rows.fetch_all(tx).await?.into_iter();
    let relay = |job: &[u8]| SyncPayload::parse(job).ok().map(|payload| payload.relay_id);
    let relays = rows.filter_map(|row| Some((row.id, relay(&row.job)?.as_str().to_owned())));
    Ok(relays.collect())
}

async fn give_up(
    tx: &mut PgConnection,
    relay_id: &str,
    job_id: &str,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let reason = one_line(reason);
    let relay = sqlx::query!(
        r#"update relay
         set sync_error = $2, failure_kind = 'permanent', exhausted_at = now(), retry_at = null,
             outage_instance = null
         where id = $1 and not synced
         returning id as "id: RelayId", tenant_pubkey, generation"#,
        relay_id,
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
    activity::append(tx, &relay.id, tenant, ActivityType::FailRelaySync, &detail).await
}

/// The cancelled job would have confirmed a relay that is in step; reconcile must not bring it back.
async fn give_up_confirming(tx: &mut PgConnection, relay_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("update relay set confirm_at = null where id = $1 and synced", relay_id)
        .execute(tx)
        .await?;
    Ok(())
}
