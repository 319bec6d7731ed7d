//! Rescue: bring back the jobs of dead workers. apalis's own takeover is switched off, because it
//! knows neither the relay's key nor what was started.

use std::time::Duration;

use sqlx::PgPool;

use super::{SYNC_RELAY, SyncPayload, relay_key};
use crate::relay::RelayId;

/// The most jobs that one call brings back; the next call takes the rest.
const BATCH: i64 = 1000;

/// What a rescue did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Jobs that wait again; those that had been started have one attempt more.
    pub requeued: u64,
    /// Started jobs that ended, because a newer job waits for their relay.
    pub superseded: u64,
}

struct Orphan {
    id: String,
    queue: String,
    payload: Vec<u8>,
    status: String,
    attempts: i32,
    lock_by: Option<String>,
}

/// Brings back jobs whose worker was not seen for `dead_after`, and jobs held for longer than
/// `stuck_after` (a worker that lives but lost them: every attempt ends long before).
///
/// A job that was only fetched waits again as it was. One that was started may have killed its
/// process: it has spent an attempt.
///
/// # Errors
/// The database did not answer; what was brought back before stays so.
pub async fn rescue(
    db: &PgPool,
    dead_after: Duration,
    stuck_after: Duration,
) -> Result<Rescued, sqlx::Error> {
    let mut rescued = Rescued::default();
    for orphan in orphans(db, dead_after, stuck_after).await? {
        let relay_id = SyncPayload::parse(&orphan.payload).map(|payload| payload.relay_id).ok();
        let key = relay_id.filter(|_| orphan.queue == SYNC_RELAY).map(|id| (relay_key(&id), id));
        let mut tx = db.begin().await?;
        if let Some((_, relay_id)) = &key
            && !try_lock(&mut tx, relay_id).await?
        {
            continue; // a transaction holds it; the others need not wait for that
        }
        let status =
            bring_back(&mut tx, &orphan, key.as_ref().map(|(key, _)| key.as_str())).await?;
        tx.commit().await?;
        match status.as_deref() {
            Some("Pending") => rescued.requeued += 1,
            Some(_) => rescued.superseded += 1,
            None => {} // somebody was faster
        }
    }
    Ok(rescued)
}

/// Locks the relay's row if nobody else has it. True also when there is no such relay.
async fn try_lock(tx: &mut sqlx::PgConnection, relay_id: &RelayId) -> Result<bool, sqlx::Error> {
    let id = relay_id.as_str();
    let locked = sqlx::query!("select id from relay where id = $1 for update skip locked", id)
        .fetch_optional(&mut *tx)
        .await?;
    if locked.is_some() {
        return Ok(true);
    }
    let exists =
        sqlx::query_scalar!(r#"select exists (select from relay where id = $1) as "exists!""#, id);
    Ok(!exists.fetch_one(tx).await?)
}

async fn orphans(
    db: &PgPool,
    dead_after: Duration,
    stuck_after: Duration,
) -> Result<Vec<Orphan>, sqlx::Error> {
    sqlx::query_as!(
        Orphan,
        r#"select job.id, job.job_type as queue, job.job as payload, job.status, job.attempts, job.lock_by
           from apalis.jobs job left join apalis.workers worker on worker.id = job.lock_by
           where job.status in ('Queued', 'Running')
             and (worker.id is null
                  or worker.last_seen < now() - make_interval(secs => $1)
                  or job.lock_at is null
                  or job.lock_at < now() - make_interval(secs => $2))
           order by job.lock_at
           limit $3"#,
        dead_after.as_secs_f64(),
        stuck_after.as_secs_f64(),
        BATCH,
    )
    .fetch_all(db)
    .await
}

/// One orphan, guarded by what it looked like; the status it got, or `None` if it had changed.
async fn bring_back(
    tx: &mut sqlx::PgConnection,
    orphan: &Orphan,
    key: Option<&str>,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"update apalis.jobs job
           set status = case when newer.waits then 'Done' else 'Pending' end,
               idempotency_key = case when newer.waits then null
                                      else coalesce($6, job.idempotency_key) end,
               attempts = job.attempts + case when job.status = 'Running' then 1 else 0 end,
               done_at = case when newer.waits then now() end,
               run_at = now(), lock_by = null, lock_at = null, metadata = ''::hstore,
               last_result = '{"Err": "the worker died; brought back"}'
           from (select exists (select from apalis.jobs
                                where job_type = $5 and idempotency_key = $6 and id <> $1) as waits) newer
           where job.id = $1 and job.status = $2 and job.attempts = $3
             and job.lock_by is not distinct from $4
           returning job.status"#,
        orphan.id,
        orphan.status,
        orphan.attempts,
        orphan.lock_by,
        orphan.queue,
        key,
    )
    .fetch_optional(tx)
    .await
}
