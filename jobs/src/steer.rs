//! What an operator does to one job: retry or cancel. The wings' own functions do what concerns their
//! rows; this chooses among them.

use sqlx::PgPool;

use crate::{
    provision::{
        self, RESYNC, SYNC_RELAY,
        relay::{By, MutationError, RelayId},
    },
    queue::{self, JobDetail, JobState, Matching},
};

/// The result for the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steered {
    /// The relay has a new job, due now.
    RelayRequeued(RelayId),
    /// The job itself waits again, due now.
    Requeued,
    /// The job is killed. Its relay stays as it is until it is changed or a sync is requested.
    Cancelled,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// The job does not exist.
    #[error("there is no job {0}; see `tender queue list`")]
    NotFound(String),
    /// The job's state does not allow it.
    #[error("job {id} is {state}; {advice}")]
    State {
        /// The job.
        id: String,
        /// Its state.
        state: &'static str,
        /// What the operator can do.
        advice: &'static str,
    },
    /// The relay is gone or could not be written.
    #[error(transparent)]
    Relay(#[from] MutationError),
    /// The database is unreachable or refused the statement.
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
}

/// Retries a killed or retrying job now. For a SyncRelay job, its relay gets a new job.
///
/// # Errors
/// [`SteerError::State`] if the job waits for its turn, runs or is done.
pub async fn retry(db: &PgPool, job_id: &str, by: &By) -> Result<Steered, SteerError> {
    let job = find(db, job_id).await?;
    if !matches!(job.summary.state, JobState::Killed | JobState::Retrying) {
        return Err(refuse(&job, "only a killed or retrying job can be retried"));
    }
    if let Some(relay_id) = provision::steer::relay_of(&job) {
        provision::steer::retry(db, job_id, &relay_id, by).await?;
        return Ok(Steered::RelayRequeued(relay_id));
    }
    if job.summary.queue == RESYNC {
        return Err(refuse(&job, "start a new one with `tender relay sync --all`"));
    }
    if queue::retry(db, job_id).await? {
        return Ok(Steered::Requeued);
    }
    Err(refuse(&job, "it has changed, or a newer job does its work; look again"))
}

/// Retries every matching job, page by page, and returns how many.
///
/// # Errors
/// [`SteerError::Database`]; jobs retried before the error stay retried.
pub async fn retry_all(db: &PgPool, matching: &Matching, by: &By) -> Result<usize, SteerError> {
    let relays = provision::steer::retry_matching(db, matching, by).await?;
    let others = queue::retry_matching(db, matching, &[SYNC_RELAY, RESYNC]).await?;
    Ok(relays + usize::try_from(others).unwrap_or(usize::MAX))
}

/// Kills a waiting or retrying job.
///
/// # Errors
/// [`SteerError::State`] if the job runs or has ended.
pub async fn cancel(db: &PgPool, job_id: &str, by: &By) -> Result<Steered, SteerError> {
    let job = find(db, job_id).await?;
    let reason = format!("cancelled by {}", by.who);
    let mut tx = db.begin().await?;
    if let Some(relay_id) = provision::steer::relay_of(&job) {
        provision::steer::give_up(&mut tx, &relay_id, job_id, &reason).await?;
    }
    if !queue::cancel(&mut *tx, job_id, &reason).await? {
        return Err(refuse(&job, "only a waiting or retrying job can be cancelled"));
    }
    tx.commit().await?;
    Ok(Steered::Cancelled)
}

async fn find(db: &PgPool, job_id: &str) -> Result<JobDetail, SteerError> {
    queue::job(db, job_id).await?.ok_or_else(|| SteerError::NotFound(job_id.to_owned()))
}

fn refuse(job: &JobDetail, advice: &'static str) -> SteerError {
    SteerError::State { id: job.summary.id.clone(), state: job.summary.state.as_str(), advice }
}
