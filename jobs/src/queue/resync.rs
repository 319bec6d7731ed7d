//! The resync of all relays: one job at a time, whose payload says where it is. Each step syncs a
//! page and puts the job back for the next, in one transaction.

use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use ulid::Ulid;

use super::{Job, RESYNC, Settled};
use crate::relay::{By, resync};

/// Relays per second, at most.
pub const MAX_RATE: u32 = 1000;

/// Only one resync goes at a time.
const KEY: &str = "resync";
/// Time between two pages, each of as many relays as the rate gives in it.
const STEP_SECS: u32 = 5;

/// Where a resync is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResyncPayload {
    /// Version of this shape; 1.
    pub v: u32,
    /// The last relay that was done; empty at the start.
    pub after: String,
    /// Relays per second.
    pub rate: u32,
    /// Relays done.
    pub done: u64,
    /// Who asked.
    pub by: String,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resynced {
    /// There is more; so many are done.
    GoesOn(u64),
    /// All are done; so many.
    Finished(u64),
}

/// Starts a resync of all relays. False when one goes on already.
///
/// # Errors
/// The database did not answer.
pub async fn start_resync(db: &PgPool, rate: u32, by: &By) -> Result<bool, sqlx::Error> {
    let payload = ResyncPayload { v: 1, after: String::new(), rate, done: 0, by: by.who.clone() };
    let inserted = sqlx::query!(
        "insert into apalis.jobs
             (id, job_type, job, status, attempts, max_attempts, run_at, priority, idempotency_key)
         values ($1, $2, $3, 'Pending', 0, 100, now(), 0, $4)
         on conflict (job_type, idempotency_key) do nothing",
        Ulid::generate().to_string(),
        RESYNC,
        encode(&payload)?,
        KEY,
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Does the next page of a started job, and puts the job back for the one after, or ends it.
///
/// # Errors
/// The database did not answer; then nothing was done.
pub async fn advance_resync(
    db: &PgPool,
    job: &Job,
    payload: &ResyncPayload,
) -> Result<Settled<Resynced>, sqlx::Error> {
    let mut tx = db.begin().await?;
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
         where id = $1 and lock_by = $2 and attempts = $3 and status = 'Running'",
        job.id,
        job.worker,
        job.attempt - 1,
        encode(&next)?,
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

fn encode(payload: &ResyncPayload) -> Result<Vec<u8>, sqlx::Error> {
    serde_json::to_vec(payload).map_err(|error| sqlx::Error::Encode(error.into()))
}
