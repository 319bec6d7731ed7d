//! What an operator does to one job: again, or never.

use serde_json::json;
use sqlx::PgPool;

use super::{JobState, KEYED, MAX_ERROR_CHARS, RESYNC, SYNC_RELAY, SyncPayload, inspect};
use crate::{
    activity::{self, ActivityType},
    relay::{self, By, MutationError, RelayId},
};

/// What became of the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steered {
    /// The relay has a new job, due now.
    RelayRequeued(RelayId),
    /// The job itself waits again, due now.
    Requeued,
    /// The job will not run; its relay stays as it is until it is changed or asked for.
    Cancelled,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// No such job.
    #[error("there is no job {0}; see `tender queue list`")]
    NotFound(String),
    /// It is in a state in which this makes no sense.
    #[error("job {id} is {state}; {advice}")]
    State {
        /// The job.
        id: String,
        /// Its state.
        state: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
    /// Its relay is gone or could not be written.
    #[error(transparent)]
    Relay(#[from] MutationError),
    /// The database did not answer.
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
}

/// Runs a job again, now. A relay's job becomes a new one of its relay.
///
/// # Errors
/// [`SteerError::State`] when it is waiting for its turn, running or done.
pub async fn retry(db: &PgPool, job_id: &str, by: &By) -> Result<Steered, SteerError> {
    let job = find(db, job_id).await?;
    if !matches!(job.summary.state, JobState::Killed | JobState::Retrying) {
        return Err(refuse(&job, "only a killed or retrying job can be retried"));
    }
    if let Some(relay_id) = relay_of(&job) {
        let relay = relay::request_sync(db, &relay_id, by).await?;
        mark_seen(db, &[job_id.to_owned()]).await?;
        return Ok(Steered::RelayRequeued(relay.id));
    }
    if job.summary.queue == RESYNC {
        return Err(refuse(&job, "start it anew with `tender relay sync --all`"));
    }
    let requeued = sqlx::query!(
        "update apalis.jobs
         set status = 'Pending', attempts = 0, run_at = now(), done_at = null, lock_by = null
         where id = $1 and status in ('Killed', 'Failed')",
        job_id,
    )
    .execute(db)
    .await?;
    if requeued.rows_affected() == 0 {
        return Err(refuse(&job, "it changed just now; look again"));
    }
    Ok(Steered::Requeued)
}

/// Which jobs to retry.
#[derive(Debug, Clone, Default)]
pub struct Matching {
    /// Only of this queue.
    pub queue: Option<String>,
    /// Killed or retrying ones; both when `None`.
    pub state: Option<JobState>,
    /// Only those whose last error contains this.
    pub error: Option<String>,
}

/// The most jobs that one call retries.
const MOST: i64 = 10_000;
/// Relays in one transaction.
const PAGE: usize = 500;

/// Retries every killed or retrying job that matches, at most 10,000; how many. A relay that is in
/// step by now is left alone, and one with several killed jobs gets one new job.
///
/// # Errors
/// [`SteerError::Database`]; pages done before stay done.
pub async fn retry_all(db: &PgPool, matching: &Matching, by: &By) -> Result<usize, SteerError> {
    let states = matching
        .state
        .map_or_else(|| vec![JobState::Killed, JobState::Retrying], |state| vec![state]);
    let statuses: Vec<String> = states
        .iter()
        .filter(|state| matches!(state, JobState::Killed | JobState::Retrying))
        .flat_map(|state| state.statuses())
        .map(|status| (*status).to_owned())
        .collect();
    let relays = matching_relays(db, matching, &statuses).await?;
    let mut retried = 0;
    for page in relays.chunks(PAGE) {
        retried += relay::request_all(db, page, by).await?;
    }
    Ok(retried + requeue(db, matching, &statuses).await?)
}

/// Relays of matching jobs, once each, that are not in step.
async fn matching_relays(
    db: &PgPool,
    matching: &Matching,
    statuses: &[String],
) -> Result<Vec<RelayId>, sqlx::Error> {
    if matching.queue.as_deref().is_some_and(|queue| queue != SYNC_RELAY) {
        return Ok(Vec::new());
    }
    let jobs = sqlx::query!(
        r#"select id, job as payload from apalis.jobs
           where job_type = $1 and status = any($2)
             and ($3::text is null or strpos(last_result->>'Err', $3) > 0)
           order by done_at limit $4"#,
        SYNC_RELAY,
        statuses,
        matching.error,
        MOST,
    )
    .fetch_all(db)
    .await?;
    mark_seen(db, &jobs.iter().map(|job| job.id.clone()).collect::<Vec<_>>()).await?;
    let ids = jobs.iter().filter_map(|job| SyncPayload::parse(&job.payload).ok());
    let ids: Vec<String> = ids.map(|payload| payload.relay_id.as_str().to_owned()).collect();
    sqlx::query_scalar!(
        r#"select id as "id: RelayId" from relay where id = any($1) and not synced order by id"#,
        &ids,
    )
    .fetch_all(db)
    .await
}

/// A killed job that was retried needs nobody's attention any more.
async fn mark_seen(db: &PgPool, job_ids: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update apalis.jobs set metadata = coalesce(metadata, ''::hstore) || hstore('seen', 'yes')
         where id = any($1) and status = 'Killed'",
        job_ids,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Matching jobs of the other queues wait again; a resync is started anew, not retried.
async fn requeue(
    db: &PgPool,
    matching: &Matching,
    statuses: &[String],
) -> Result<usize, sqlx::Error> {
    let requeued = sqlx::query!(
        "update apalis.jobs
         set status = 'Pending', attempts = 0, run_at = now(), done_at = null, lock_by = null
         where job_type <> all($1) and ($2::text is null or job_type = $2) and status = any($3)
           and ($4::text is null or strpos(last_result->>'Err', $4) > 0)",
        &KEYED.map(str::to_owned),
        matching.queue,
        statuses,
        matching.error,
    )
    .execute(db)
    .await?;
    Ok(usize::try_from(requeued.rows_affected()).unwrap_or(usize::MAX))
}

/// Ends a waiting job. Its relay is marked as given up by the operator, so that reconcile does not
/// bring the job back and nobody overlooks it.
///
/// # Errors
/// [`SteerError::State`] when it is running or finished.
pub async fn cancel(db: &PgPool, job_id: &str, by: &By) -> Result<Steered, SteerError> {
    let job = find(db, job_id).await?;
    let message: String =
        format!("cancelled by {}", by.who).chars().take(MAX_ERROR_CHARS).collect();
    let mut tx = db.begin().await?;
    let relay_id = relay_of(&job);
    if let Some(relay_id) = &relay_id {
        give_up(&mut tx, relay_id, job_id, &message).await?;
    }
    let cancelled = sqlx::query!(
        "update apalis.jobs
         set status = 'Killed', done_at = now(), last_result = $2,
             metadata = case when $4::text is null then ''::hstore else hstore('relay', $4) end,
             idempotency_key = case when job_type = any($3) or idempotency_key like 'lane:%'
                                    then null else idempotency_key end
         where id = $1 and status in ('Pending', 'Failed')",
        job_id,
        json!({ "Err": message }),
        &KEYED.map(str::to_owned),
        relay_id.as_ref().map(RelayId::as_str),
    )
    .execute(&mut *tx)
    .await?;
    if cancelled.rows_affected() == 0 {
        return Err(refuse(&job, "only a waiting or retrying job can be cancelled"));
    }
    tx.commit().await?;
    Ok(Steered::Cancelled)
}

async fn give_up(
    tx: &mut sqlx::PgConnection,
    relay_id: &RelayId,
    job_id: &str,
    message: &str,
) -> Result<(), sqlx::Error> {
    let relay = sqlx::query!(
        "update relay
         set sync_error = $2, failure_kind = 'permanent', exhausted_at = now(), retry_at = null
         where id = $1 and not synced
         returning tenant_pubkey, generation",
        relay_id.as_str(),
        message,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(relay) = relay else { return Ok(()) };
    let detail = json!({
        "job": job_id, "generation": relay.generation, "error": message, "kind": "permanent",
        "status": null, "retry_at": null,
    });
    let tenant = &relay.tenant_pubkey;
    activity::append(tx, relay_id, tenant, ActivityType::FailRelaySync, &detail).await
}

async fn find(db: &PgPool, job_id: &str) -> Result<inspect::JobDetail, SteerError> {
    inspect::job(db, job_id).await?.ok_or_else(|| SteerError::NotFound(job_id.to_owned()))
}

/// The relay of a readable SyncRelay job.
fn relay_of(job: &inspect::JobDetail) -> Option<RelayId> {
    if job.summary.queue != SYNC_RELAY {
        return None;
    }
    SyncPayload::parse(job.payload.as_bytes()).map(|payload| payload.relay_id).ok()
}

fn refuse(job: &inspect::JobDetail, advice: &'static str) -> SteerError {
    SteerError::State { id: job.summary.id.clone(), state: job.summary.state.as_str(), advice }
}
