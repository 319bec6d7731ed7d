//! What an operator does to one job: again, or never.

use serde_json::json;
use sqlx::PgPool;

use super::{JobState, MAX_ERROR_CHARS, SYNC_RELAY, SyncPayload, inspect};
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
        return Ok(Steered::RelayRequeued(relay.id));
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
    if let Some(relay_id) = relay_of(&job) {
        give_up(&mut tx, &relay_id, job_id, &message).await?;
    }
    let cancelled = sqlx::query!(
        "update apalis.jobs
         set status = 'Killed', done_at = now(), last_result = $2,
             idempotency_key = case when job_type = $3 then null else idempotency_key end
         where id = $1 and status in ('Pending', 'Failed')",
        job_id,
        json!({ "Err": message }),
        SYNC_RELAY,
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
