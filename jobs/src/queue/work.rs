//! The jobs of event sync: what they carry, and how they get into the queue.
//!
//! A lane's job holds the key `lane:<id>` until it ends, so that there is one at most. The others need
//! no key: everything they do may be done twice.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{PgConnection, PgExecutor, PgPool};
use ulid::Ulid;
use uuid::Uuid;

use super::{CHANNEL, DELETIONS, EVENTS, Job, SYNC, Settled, UPLOADS, one_line};
use crate::lane::LaneKind;

/// What a job of event sync carries: ids, and of events that were just received, themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub enum Work {
    /// Sees which upstreams have work of a mode, and enqueues it.
    Orchestrate {
        /// The mode.
        mode: LaneKind,
        /// Only this upstream.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upstream: Option<Uuid>,
        /// Somebody asked: a cool-down does not count.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        manual: bool,
    },
    /// The next step of a lane: a window, or a run of uploads.
    Lane {
        /// The lane.
        lane: Uuid,
        /// Its kind, for people.
        kind: LaneKind,
    },
    /// Frees lanes whose holder died or whose cool-down is over.
    Recover,
    /// Expiry, and the end of what was deleted long ago.
    Purge,
    /// Verifies and stores events.
    ProcessEvents {
        /// From which upstream.
        upstream: Uuid,
        /// Each as JSON text.
        events: Vec<String>,
    },
    /// Applies a stored deletion once more.
    ProcessDeletion {
        /// Its id, hex.
        event: String,
    },
    /// Uploads these events, if they are wanted there still.
    UploadEvents {
        /// To which upstream.
        upstream: Uuid,
        /// Their ids, hex.
        events: Vec<String>,
    },
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    v: u32,
    #[serde(flatten)]
    work: Work,
}

impl Work {
    /// Reads a job's payload.
    ///
    /// # Errors
    /// Why it can never be done.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let read = serde_json::from_slice::<Versioned>(bytes);
        let read = read.map_err(|error| format!("the payload is unreadable: {error}"))?;
        match read.v {
            1 => Ok(read.work),
            v => Err(format!("the payload has version {v}; this worker reads version 1")),
        }
    }

    /// The queue that it belongs to.
    pub fn queue(&self) -> &'static str {
        match self {
            Self::Lane { kind: LaneKind::Upload, .. } | Self::UploadEvents { .. } => UPLOADS,
            Self::Orchestrate { .. } | Self::Lane { .. } | Self::Recover | Self::Purge => SYNC,
            Self::ProcessEvents { .. } => EVENTS,
            Self::ProcessDeletion { .. } => DELETIONS,
        }
    }

    /// Attempts that it has, the first included.
    pub fn max_attempts(&self) -> i32 {
        match self {
            Self::Orchestrate { .. } | Self::Recover | Self::Purge => 1,
            Self::Lane { kind: LaneKind::Upload, .. } | Self::UploadEvents { .. } => 3,
            Self::Lane { .. } | Self::ProcessEvents { .. } | Self::ProcessDeletion { .. } => 5,
        }
    }

    pub(super) fn payload(&self) -> Result<Vec<u8>, sqlx::Error> {
        let versioned = Versioned { v: 1, work: self.clone() };
        serde_json::to_vec(&versioned).map_err(|error| sqlx::Error::Encode(error.into()))
    }
}

/// Enqueues a job without a key, due after a while; its id.
///
/// # Errors
/// The database did not answer.
pub async fn push(
    db: &mut PgConnection,
    work: &Work,
    after: Duration,
) -> Result<String, sqlx::Error> {
    let id = Ulid::generate().to_string();
    insert(db, &id, work, None, after).await?;
    Ok(id)
}

/// Enqueues the next job of a lane; its id, or `None` when the lane has one already.
///
/// # Errors
/// The database did not answer.
pub async fn push_lane(
    db: &mut PgConnection,
    lane: Uuid,
    kind: LaneKind,
    after: Duration,
) -> Result<Option<String>, sqlx::Error> {
    let id = Ulid::generate().to_string();
    let key = format!("lane:{lane}");
    let is_new = insert(db, &id, &Work::Lane { lane, kind }, Some(&key), after).await?;
    Ok(is_new.then_some(id))
}

async fn insert(
    db: &mut PgConnection,
    id: &str,
    work: &Work,
    key: Option<&str>,
    after: Duration,
) -> Result<bool, sqlx::Error> {
    // Without a delay due at once, so that the insert's trigger announces it.
    let inserted = sqlx::query!(
        "insert into apalis.jobs
             (id, job_type, job, status, attempts, max_attempts, run_at, priority, idempotency_key)
         values ($1, $2, $3, 'Pending', 0, $4, now() + make_interval(secs => $5), 0, $6)
         on conflict (job_type, idempotency_key) do nothing",
        id,
        work.queue(),
        work.payload()?,
        work.max_attempts(),
        after.as_secs_f64(),
        key,
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Makes a lane's waiting job due now. False when it has none, or it runs.
///
/// # Errors
/// The database did not answer.
pub async fn hurry_lane(db: &PgPool, lane: Uuid, kind: LaneKind) -> Result<bool, sqlx::Error> {
    let queue = Work::Lane { lane, kind }.queue();
    let hurried = sqlx::query_scalar!(
        r#"with hurried as (
               update apalis.jobs set run_at = now()
               where job_type = $1 and idempotency_key = $2 and status in ('Pending', 'Failed')
               returning id, job_type, run_at)
           select pg_notify($3, json_build_object('job_type', job_type, 'id', id, 'run_at', run_at)::text)
                  is not null as "was!"
           from hurried"#,
        queue,
        format!("lane:{lane}"),
        CHANNEL,
    )
    .fetch_optional(db)
    .await?;
    Ok(hurried.is_some())
}

/// Whether a lane has a job, waiting or running.
///
/// # Errors
/// The database did not answer.
pub async fn lane_has_job(db: impl PgExecutor<'_>, lane: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from apalis.jobs
                          where job_type in ($1, $2) and idempotency_key = $3) as "has!""#,
        SYNC,
        UPLOADS,
        format!("lane:{lane}"),
    )
    .fetch_one(db)
    .await
}

/// Enqueues every stored deletion, to be applied once more; how many. At most 100,000.
///
/// # Errors
/// The database did not answer.
pub async fn push_deletions(db: &PgPool) -> Result<u64, sqlx::Error> {
    let pushed = sqlx::query!(
        "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority)
         select apalis.generate_ulid(), $1,
                convert_to(json_build_object(
                    'v', 1, 'job', 'process_deletion', 'event', encode(id, 'hex'))::text, 'UTF8'),
                'Pending', 0, 5, now() + interval '1 second', 0
         from event where kind = 5 order by position limit 100000",
        DELETIONS,
    )
    .execute(db)
    .await?;
    Ok(pushed.rows_affected())
}

/// Enqueues an upload for every live upstream that takes events: what was just stored goes out at once.
/// One that runs meanwhile looks again before it ends.
///
/// # Errors
/// The database did not answer.
pub(crate) async fn push_live_uploads(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into apalis.jobs
             (id, job_type, job, status, attempts, max_attempts, run_at, priority, idempotency_key)
         select apalis.generate_ulid(), $1,
                convert_to(json_build_object(
                    'v', 1, 'job', 'lane', 'lane', lane.id, 'kind', 'upload')::text, 'UTF8'),
                'Pending', 0, 3, now(), 0, 'lane:' || lane.id
         from lane join upstream u on u.id = lane.upstream_id
         where lane.lane = 'upload' and u.live and u.enabled and u.direction in ('up', 'both')
           and (lane.status <> 'error' or lane.retry_at <= now())
         on conflict (job_type, idempotency_key) do nothing",
        UPLOADS,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Puts a job back for a later attempt; this one is spent.
///
/// # Errors
/// The database did not answer.
pub async fn retry_later(
    db: &mut PgConnection,
    job: &Job,
    after: Duration,
    error: &str,
) -> Result<Settled<()>, sqlx::Error> {
    let written = sqlx::query!(
        "update apalis.jobs
         set status = 'Failed', attempts = $3 + 1, run_at = now() + make_interval(secs => $4),
             max_attempts = greatest(max_attempts, $3 + 2), lock_by = null, lock_at = null,
             last_result = $5
         where id = $1 and lock_by = $2 and attempts = $3 and status in ('Queued', 'Running')",
        job.id,
        job.worker,
        job.attempt - 1,
        after.as_secs_f64(),
        json!({ "Err": one_line(error) }),
    )
    .execute(db)
    .await?;
    Ok(if written.rows_affected() == 1 { Settled::Written(()) } else { Settled::LeaseLost })
}

/// A killed job of a lane needs nobody's attention by itself: its lane does, for as long as it is in
/// error.
pub(crate) async fn mark_told(db: &mut PgConnection, job: &Job) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update apalis.jobs set metadata = coalesce(metadata, ''::hstore) || hstore('seen', 'lane')
         where id = $1 and status = 'Killed'",
        job.id,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Puts a job back as it was fetched: its process stops. No attempt is spent.
///
/// # Errors
/// The database did not answer.
pub async fn give_back(db: impl PgExecutor<'_>, job: &Job) -> Result<Settled<()>, sqlx::Error> {
    let given = sqlx::query_scalar!(
        r#"with given as (
               update apalis.jobs
               set status = 'Pending', run_at = now(), lock_by = null, lock_at = null
               where id = $1 and lock_by = $2 and attempts = $3 and status in ('Queued', 'Running')
               returning id, job_type, run_at)
           select pg_notify($4, json_build_object('job_type', job_type, 'id', id, 'run_at', run_at)::text)
                  is not null as "was!"
           from given"#,
        job.id,
        job.worker,
        job.attempt - 1,
        CHANNEL,
    )
    .fetch_optional(db)
    .await?;
    Ok(if given.is_some() { Settled::Written(()) } else { Settled::LeaseLost })
}

/// Inserts one tick of a recurring job of event sync, unless some process did so already.
///
/// # Errors
/// The database did not answer.
pub async fn push_tick(db: &PgPool, work: &Work, name: &str) -> Result<bool, sqlx::Error> {
    let mut connection = db.acquire().await?;
    let id = Ulid::generate().to_string();
    insert(&mut connection, &id, work, Some(name), Duration::ZERO).await
}

/// A kind of work, and how many of its jobs wait.
#[derive(Debug, Clone, Serialize)]
pub struct WaitingWork {
    /// Its queue.
    pub queue: String,
    /// Its name in the payload.
    pub job: String,
    /// How many.
    pub waiting: i64,
    /// Since when the oldest is due.
    pub oldest_due_at: Option<DateTime<Utc>>,
}

/// What of event sync waits in the queue, by kind.
///
/// # Errors
/// The database did not answer.
pub async fn waiting_work(db: impl PgExecutor<'_>) -> Result<Vec<WaitingWork>, sqlx::Error> {
    sqlx::query_as!(
        WaitingWork,
        r#"select job_type as "queue!", coalesce(convert_from(job, 'UTF8')::jsonb->>'job', '?') as "job!",
                  count(*) as "waiting!", min(run_at) filter (where run_at <= now()) as oldest_due_at
           from (select job_type, job, run_at from apalis.jobs
                 where job_type = any($1) and status in ('Pending', 'Failed') limit 10000) waiting
           group by 1, 2 order by 1, 2"#,
        &[SYNC, EVENTS, UPLOADS, DELETIONS].map(str::to_owned),
    )
    .fetch_all(db)
    .await
}
