//! The queue: durable jobs in apalis's tables. No other room names them.
//!
//! A job of `sync-relay` goes through these states (`docs/ARCHITECTURE.md` draws them):
//! `Pending` (waiting) → `Queued` (fetched) → `Running` (claimed) → `Done`, `Killed`, or `Failed`
//! (waiting for its retry) → `Queued` …
//!
//! Whoever gives or takes the key `relay:<id>` holds that relay's row lock, always taken before the
//! job's: so there is at most one waiting job per relay, and nobody deadlocks.

mod board;
mod claim;
mod fail;
mod hold;
mod inspect;
pub mod instance;
mod pause;
mod prune;
mod reconcile;
mod rescue;
mod resync;
mod settle;
mod steer;
mod work;
mod worker;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor, PgPool};
use ulid::Ulid;

use crate::relay::RelayId;

pub use board::board;
pub use claim::{Claim, ClaimRequest, Lease, claim, is_leased, lease_of, start};
pub use fail::{Failure, Reached, Rules, Verdict, fail};
pub use hold::{put_back, release_held};
pub use inspect::{
    COUNT_CAP, JobDetail, JobFilter, JobState, JobSummary, QueueStatus, Worker, job, jobs, status,
    workers,
};
pub use pause::{Paused, pause, paused, resume};
pub use prune::{Pruned, Retention, prune};
pub use reconcile::{PAGE as RECONCILE_PAGE, Page, enqueue_pending};
pub use rescue::{Rescued, rescue};
pub use resync::{MAX_RATE, ResyncPayload, Resynced, advance_resync, start_resync};
pub use settle::{
    Attempt, Completed, Completion, MAX_ERROR_CHARS, Settled, complete, finish, kill, one_line,
    snooze,
};
pub use steer::{Matching, SteerError, Steered, cancel, retry, retry_all};
pub use work::{
    WaitingWork, Work, give_back, hurry_lane, lane_has_job, push, push_deletions, push_lane,
    push_tick, retry_later, waiting_work,
};
pub(crate) use work::{mark_told, push_live_uploads};
pub use worker::{Depth, RECENT, fetch, heartbeat, register, release, unregister};

/// The queue whose jobs carry a relay to zooid.
pub const SYNC_RELAY: &str = "sync-relay";
/// The queue of the recurring reconcile job.
pub const RECONCILE: &str = "reconcile";
/// The queue of the recurring pruning of finished rows.
pub const PRUNE: &str = "prune";
/// The queue of a resync of all relays: one job, that walks them page by page.
pub const RESYNC: &str = "resync";
/// The queue of event sync: windows, and what sees to the lanes.
pub const SYNC: &str = "sync";
/// The queue of events that were received and wait to be stored.
pub const EVENTS: &str = "events";
/// The queue of uploads to upstreams.
pub const UPLOADS: &str = "uploads";
/// The queue of deletions that are applied once more.
pub const DELETIONS: &str = "deletions";
/// Every queue.
pub const QUEUES: [&str; 8] =
    [SYNC_RELAY, RECONCILE, PRUNE, RESYNC, SYNC, EVENTS, UPLOADS, DELETIONS];

/// Queues whose jobs hold a key only while they wait or, for a resync, go on. Of the others, the key of
/// a lane's job goes with it, and that of a tick stays, which says that the tick was run.
pub(crate) const KEYED: [&str; 2] = [SYNC_RELAY, RESYNC];

/// The channel on which apalis's trigger announces an inserted job that is due.
pub const CHANNEL: &str = "apalis::job::insert";

/// Every priority that a job may have; higher goes first.
pub(crate) const PRIORITIES: [i32; 3] = [10, 5, 0];

/// Attempts of a new row; a worker writes its own schedule's number when it settles.
pub(crate) const DEFAULT_MAX_ATTEMPTS: i32 = 7;

/// Why a relay is to be synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// It was created.
    Create,
    /// What it wants changed.
    Update,
    /// It was activated.
    Activate,
    /// It was deactivated.
    Deactivate,
    /// Reconcile found it pending without a job.
    Reconcile,
    /// An operator, or its tenant, asked.
    Operator,
}

impl Cause {
    /// A tenant's change never waits behind a bulk resync.
    fn priority(self) -> i32 {
        match self {
            Self::Create | Self::Update | Self::Activate | Self::Deactivate => 10,
            Self::Operator => 5,
            Self::Reconcile => 0,
        }
    }
}

/// What a job of `sync-relay` carries: ids only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncPayload {
    /// Version of this shape; 1.
    pub v: u32,
    /// The relay to carry to zooid, as it is when the attempt starts.
    pub relay_id: RelayId,
    /// Why.
    pub cause: Cause,
    /// The id of the request that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// Why a payload cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadablePayload {
    /// It is no JSON of the expected shape.
    #[error("the payload is unreadable: {0}")]
    Shape(#[from] serde_json::Error),
    /// A later release wrote it.
    #[error("the payload has version {0}; this worker reads version 1")]
    Version(u32),
}

impl SyncPayload {
    /// Reads a job's payload.
    ///
    /// # Errors
    /// [`UnreadablePayload`]: the job can never be done.
    pub fn parse(bytes: &[u8]) -> Result<Self, UnreadablePayload> {
        let payload: Self = serde_json::from_slice(bytes)?;
        if payload.v == 1 { Ok(payload) } else { Err(UnreadablePayload::Version(payload.v)) }
    }
}

/// A job that a worker fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its row's id.
    pub id: String,
    /// Its queue.
    pub queue: String,
    /// What it carries; parsed by the handler, since a row may hold anything.
    pub payload: Vec<u8>,
    /// This attempt's number, from 1: the row's persisted count plus one.
    pub attempt: i32,
    /// The worker that fetched it, unique per start.
    pub worker: String,
    /// How long it was due before it was fetched.
    pub waited: Duration,
}

/// The key that a relay's waiting job holds.
pub(crate) fn relay_key(id: &RelayId) -> String {
    format!("relay:{id}")
}

/// Makes sure that a due job for the relay is waiting. The caller's transaction must hold the
/// relay's row lock.
///
/// A job that waits already, for its turn or for a retry, is made due now with attempts 0; a job
/// already fetched is left alone, since its handler reads the relay when it starts.
pub(crate) async fn enqueue_sync(
    db: impl PgExecutor<'_>,
    relay_id: &RelayId,
    cause: Cause,
    trace: Option<&str>,
) -> Result<(), sqlx::Error> {
    let payload =
        SyncPayload { v: 1, relay_id: relay_id.clone(), cause, trace: trace.map(str::to_owned) };
    let payload =
        serde_json::to_vec(&payload).map_err(|error| sqlx::Error::Encode(error.into()))?;
    // The insert's trigger notifies; an update has to say so itself.
    sqlx::query!(
        r#"with waiting as (
               insert into apalis.jobs as job
                   (id, job_type, job, status, attempts, max_attempts, run_at, priority, idempotency_key)
               values ($1, $2, $3, 'Pending', 0, $4, now(), $5, $6)
               on conflict (job_type, idempotency_key) do update set
                   job = excluded.job, status = 'Pending', attempts = 0, run_at = now(),
                   priority = greatest(job.priority, excluded.priority), done_at = null
               where job.status in ('Pending', 'Failed')
               returning job.id, job.job_type, job.run_at, job.id <> $1 as was_waiting)
           select pg_notify($7, json_build_object('job_type', job_type, 'id', id, 'run_at', run_at)::text)
           from waiting where was_waiting"#,
        Ulid::generate().to_string(),
        SYNC_RELAY,
        payload,
        DEFAULT_MAX_ATTEMPTS,
        cause.priority(),
        relay_key(relay_id),
        CHANNEL,
    )
    .fetch_optional(db)
    .await?;
    Ok(())
}

/// As [`enqueue_sync`], for many relays whose rows the caller's transaction holds. Due a second ahead,
/// so that the insert's trigger stays silent: a thousand notifications in one commit would hold its
/// database-wide lock. Polling finds them.
pub(crate) async fn enqueue_many(
    tx: &mut PgConnection,
    relay_ids: &[String],
    cause: Cause,
) -> Result<(), sqlx::Error> {
    let cause_name = serde_json::to_value(cause).map_err(|e| sqlx::Error::Encode(e.into()))?;
    sqlx::query!(
        "insert into apalis.jobs as job
             (id, job_type, job, status, attempts, max_attempts, run_at, priority, idempotency_key)
         select apalis.generate_ulid(), $2,
                convert_to(json_build_object('v', 1, 'relay_id', id, 'cause', $3::jsonb)::text, 'UTF8'),
                'Pending', 0, $4, now() + interval '1 second', $5, 'relay:' || id
         from unnest($1::text[]) id
         on conflict (job_type, idempotency_key) do update set
             job = excluded.job, status = 'Pending', attempts = 0, run_at = excluded.run_at,
             priority = greatest(job.priority, excluded.priority), done_at = null
         where job.status in ('Pending', 'Failed')",
        relay_ids,
        SYNC_RELAY,
        cause_name,
        DEFAULT_MAX_ATTEMPTS,
        cause.priority(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Inserts one run of a recurring job, unless some process did so already: `name` identifies the
/// run, such as `reconcile@1700000000`.
///
/// # Errors
/// The database did not answer.
pub async fn enqueue_once(
    db: impl PgExecutor<'_>,
    queue: &str,
    name: &str,
) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query!(
        r#"insert into apalis.jobs
               (id, job_type, job, status, attempts, max_attempts, run_at, priority, idempotency_key)
           values ($1, $2, $3, 'Pending', 0, 3, now(), 0, $4)
           on conflict (job_type, idempotency_key) do nothing"#,
        Ulid::generate().to_string(),
        queue,
        br#"{"v":1}"#.as_slice(),
        name,
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// The database's clock.
///
/// # Errors
/// The database did not answer.
pub async fn now(db: &PgPool) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(db).await
}
