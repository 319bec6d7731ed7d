//! What an operator does to jobs: retry, cancel, delete. The wings' own functions do what concerns their rows;
//! this chooses among them.

mod bulk;

use sqlx::PgPool;

use crate::{
    provision::{
        self, RESYNC,
        relay::{By, MutationError, RelayId},
    },
    queue::{self, JobDetail, JobState},
};

pub use bulk::{Bounds, Bulk, count_matching, count_named, matching, named};

/// What an operator does to jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Killed and retrying jobs are due now, with no attempt spent. For a SyncRelay job, its relay gets a new one.
    Retry,
    /// Waiting and retrying jobs are killed. A relay gives up, and waits for a change or a sync.
    Cancel,
    /// The rows of ended jobs are deleted, as pruning would do later.
    Delete,
}

impl Verb {
    /// Returns the states of the jobs that it concerns. Retrying jobs come first, because they hold their keys.
    pub fn states(self) -> &'static [JobState] {
        match self {
            Self::Retry => &[JobState::Retrying, JobState::Killed],
            Self::Cancel => &[JobState::Retrying, JobState::Waiting],
            Self::Delete => &[JobState::Killed, JobState::Done],
        }
    }

    /// Returns the name that forms and the record of actions use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Delete => "delete",
        }
    }

    /// Reads the name; `None` if it is another.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Retry, Self::Cancel, Self::Delete].into_iter().find(|verb| verb.as_str() == name)
    }
}

/// The result for the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steered {
    /// The relay has a new job, due now.
    RelayRequeued(RelayId),
    /// The job itself waits again, due now.
    Requeued,
    /// The job is killed. Its relay stays as it is until it is changed or a sync is requested.
    Cancelled,
    /// The row of the job is deleted.
    Deleted,
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
    if !Verb::Retry.states().contains(&job.summary.state) {
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

/// Kills a waiting or retrying job.
///
/// # Errors
/// [`SteerError::State`] if the job runs or has ended.
pub async fn cancel(db: &PgPool, job_id: &str, by: &By) -> Result<Steered, SteerError> {
    let job = find(db, job_id).await?;
    if bulk::page(db, Verb::Cancel, &[job_id.to_owned()], by).await? == 0 {
        return Err(refuse(&job, "only a waiting or retrying job can be cancelled"));
    }
    Ok(Steered::Cancelled)
}

/// Deletes the row of a job that has ended.
///
/// # Errors
/// [`SteerError::State`] if the job has not ended, or is the only record of its work.
pub async fn delete(db: &PgPool, job_id: &str, by: &By) -> Result<Steered, SteerError> {
    let job = find(db, job_id).await?;
    if bulk::page(db, Verb::Delete, &[job_id.to_owned()], by).await? == 1 {
        return Ok(Steered::Deleted);
    }
    Err(refuse(
        &job,
        if job.summary.state == JobState::Killed {
            "it holds events that are stored nowhere else: retry it"
        } else {
            "only a job that has ended can be deleted: cancel it first"
        },
    ))
}

async fn find(db: &PgPool, job_id: &str) -> Result<JobDetail, SteerError> {
    queue::job(db, job_id).await?.ok_or_else(|| SteerError::NotFound(job_id.to_owned()))
}

fn refuse(job: &JobDetail, advice: &'static str) -> SteerError {
    SteerError::State { id: job.summary.id.clone(), state: job.summary.state.as_str(), advice }
}
