//! The resync of every relay: one job at a time, whose payload records its position. Each step requests
//! a page of relays and puts the job back for the next page, in one transaction.

use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use super::{
    RESYNC,
    relay::{By, resync},
};
use crate::queue::{self, Job, NewJob, Settled};

/// The highest rate, in relays per second.
pub const MAX_RATE: u32 = 1000;

/// The key: one resync at a time.
const KEY: &str = "resync";
/// Each crash of a worker spends one; a resync of a million relays has many pages.
const MAX_ATTEMPTS: i32 = 100;
/// The time between two pages; a page has as many relays as the rate gives in that time.
const STEP_SECS: u32 = 5;

/// The position of a resync.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResyncPayload {
    /// The version of this shape, 1.
    pub v: u32,
    /// The last relay that was requested; empty at the start.
    pub after: String,
    /// Relays per second.
    pub rate: u32,
    /// The number of relays requested so far.
    pub done: u64,
    /// The operator that asked for the resync.
    pub by: String,
}

/// The result of a step, with the number of relays requested so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resynced {
    /// More relays follow.
    GoesOn(u64),
    /// Every relay was requested.
    Finished(u64),
}

/// Starts a resync of every relay. Returns false if one is under way.
///
/// # Errors
/// See [`provision`](super).
pub async fn start_resync(db: &PgPool, rate: u32, by: &By) -> Result<bool, sqlx::Error> {
    let payload = ResyncPayload { v: 1, after: String::new(), rate, done: 0, by: by.who.clone() };
    let job = NewJob::new(RESYNC, &payload).key(KEY).max_attempts(MAX_ATTEMPTS);
    Ok(!queue::enqueue(db, &[job]).await?.is_empty())
}

/// Requests the next page of a started job, and puts the job back or ends it.
///
/// # Errors
/// See [`provision`](super); then nothing was done.
pub async fn advance_resync(
    db: &PgPool,
    job: &Job,
    payload: &ResyncPayload,
) -> Result<Settled<Resynced>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let by = By { who: payload.by.clone(), trace: None };
    let size = payload.rate.saturating_mul(STEP_SECS);
    let page = resync::page(&mut tx, &payload.after, i64::from(size), &by).await?;
    let done = payload.done + page.requested;
    let is_last = page.requested < u64::from(size);
    let after = page.last.map_or_else(|| payload.after.clone(), |id| id.as_str().to_owned());
    let next = ResyncPayload { after, done, ..payload.clone() };
    let written = sqlx::query!(
        "update apalis.jobs
         set job = $4, status = case when $5 then 'Done' else 'Pending' end,
             idempotency_key = case when $5 then null else idempotency_key end,
             done_at = case when $5 then now() end, lock_by = null, lock_at = null,
             run_at = now() + make_interval(secs => $6),
             last_result = json_build_object('Ok', $7::bigint)
         where id = $1 and coalesce(lock_by, '') = $2 and attempts = $3 and coalesce(status, '') = 'Running'",
        job.id,
        job.worker,
        job.attempt - 1,
        serde_json::to_vec(&next).map_err(|error| sqlx::Error::Encode(error.into()))?,
        is_last,
        f64::from(STEP_SECS),
        i64::try_from(done).unwrap_or(i64::MAX),
    )
    .execute(&mut *tx)
    .await?;
    if written.rows_affected() == 0 {
        return Ok(Settled::LeaseLost); // the page rolls back
    }
    tx.commit().await?;
    Ok(Settled::Written(if is_last { Resynced::Finished(done) } else { Resynced::GoesOn(done) }))
}
