//! Settle: the end of an attempt. Relay, activity and job row commit together, each guarded: the
//! relay by its lease's epoch, the job by id, worker and attempt. A guard that finds nothing means
//! that somebody else took over; then nothing is written.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};
use sqlx::{PgExecutor, PgPool};

use super::{Job, KEYED, Lease, SYNC_RELAY, hold, relay_key};
use crate::relay::RelayId;

/// What is stored of an error, in characters.
pub const MAX_ERROR_CHARS: usize = 1000;

/// What an attempt did, for the activity.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// The last request's method; `None` when there was none.
    pub method: Option<&'static str>,
    /// From claim to answer.
    pub duration: Duration,
    /// Something that an operator should know although it went well.
    pub note: Option<String>,
}

/// Whether an outcome was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled<T> {
    /// It was.
    Written(T),
    /// The job or the lease is not ours any more: nothing was written.
    LeaseLost,
}

/// One line of at most [`MAX_ERROR_CHARS`] characters.
pub fn one_line(text: &str) -> String {
    let words = text.replace(char::is_control, " ");
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MAX_ERROR_CHARS).collect()
}

/// An attempt that reached zooid.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Its job.
    pub job: Job,
    /// Its lease.
    pub lease: Lease,
    /// What it did.
    pub attempt: Attempt,
    /// The instance that it reached.
    pub instance: String,
    /// What was sent, secrets masked.
    pub sent: Value,
}

/// What became of a completion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Completed {
    /// It was written.
    Written {
        /// The relay is in step now; false when a mutation came in between, whose own job does the
        /// rest.
        in_step: bool,
        /// From the relay's last change until now.
        latency: Duration,
    },
    /// The job or the lease is not ours any more: nothing was written.
    LeaseLost,
    /// The relay's row is locked by a transaction: nothing was written, and it may be asked again.
    Locked,
}

/// Settles attempts that reached zooid, all in one statement, each under its own guards. Answers in
/// the order asked. Their instances have answered: a run of outage failures ends, an open breaker
/// closes.
///
/// # Errors
/// The database did not answer; the caller tries again, and the guards make that harmless.
pub async fn complete(
    db: &PgPool,
    completions: &[Completion],
) -> Result<Vec<Completed>, sqlx::Error> {
    let text = |text: fn(&Completion) -> &str| -> Vec<String> {
        completions.iter().map(|completion| text(completion).to_owned()).collect()
    };
    let number =
        |number: fn(&Completion) -> i64| -> Vec<i64> { completions.iter().map(number).collect() };
    let attempts: Vec<i32> = completions.iter().map(|completion| completion.job.attempt).collect();
    let details: Vec<Value> = completions
        .iter()
        .map(|c| detail_of(&c.job, c.lease.relay.generation, &c.attempt))
        .collect();
    let rows = sqlx::query!(
        r#"with asked as (
               select * from unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::bigint[],
                                    $6::bigint[], $7::jsonb[], $8::text[], $9::jsonb[])
                   as asked (job_id, worker, attempt, relay_id, epoch, carried, detail, instance, sent)
           ), held as materialized (
               select asked.* from relay
               join asked on relay.id = asked.relay_id and relay.lease_job = asked.job_id
                         and relay.lease_epoch = asked.epoch
               order by relay.id
               for update of relay skip locked
           ), job as (
               update apalis.jobs job
               set status = 'Done', attempts = held.attempt, done_at = now(), lock_by = null,
                   last_result = '{"Ok": "synced"}'
               from held
               where job.id = held.job_id and job.lock_by = held.worker
                 and job.attempts = held.attempt - 1 and job.status = 'Running'
               returning job.id
           ), settled as (
               update relay
               set synced_generation = held.carried, sent = held.sent,
                   provisioned_at = coalesce(provisioned_at, now()),
                   sync_error = case when generation = held.carried then '' else sync_error end,
                   failure_kind = case when generation = held.carried then null else failure_kind end,
                   attempts = case when generation = held.carried then 0 else relay.attempts end,
                   retry_at = null, exhausted_at = null,
                   lease_owner = null, lease_job = null, lease_until = null
               from held join job on job.id = held.job_id
               where relay.id = held.relay_id
               returning relay.id, relay.tenant_pubkey, held.job_id, held.detail, held.instance,
                         relay.generation = held.carried as in_step,
                         greatest(extract(epoch from now() - relay.updated_at), 0) as latency
           ), recorded as (
               insert into activity (tenant_pubkey, activity_type, resource_id, detail)
               select tenant_pubkey, 'complete_relay_sync', id, detail from settled
           ), forgotten as (
               delete from zooid_failure where instance in (select instance from settled)
               returning relay_id
           ), closed as (
               update zooid_instance
               set opened_at = null, retry_at = null, failed_probes = 0, probe_job = null,
                   probe_until = null, last_error = ''
               where opened_at is not null and name in (select instance from settled)
               returning name
           )
           select job_id as "job_id!", in_step as "in_step!", latency::float8 as "latency!",
                  case when exists (select from closed)
                       then (select coalesce(array_agg(distinct relay_id), '{}') from forgotten) end
                       as failed_before
           from settled"#,
        &text(|c| &c.job.id),
        &text(|c| &c.job.worker),
        &attempts,
        &text(|c| c.lease.relay.id.as_str()),
        &number(|c| c.lease.epoch),
        &number(|c| c.lease.relay.generation),
        &details,
        &text(|c| &c.instance),
        &completions.iter().map(|c| c.sent.clone()).collect::<Vec<_>>(),
    )
    .fetch_all(db)
    .await?;
    if let Some(relays) = rows.first().and_then(|row| row.failed_before.as_deref()) {
        // Written is written; the next round of the rescue releases what is left.
        let _the_next_round_does_it = hold::release(db, relays).await;
    }
    let mut written: HashMap<_, _> = rows
        .into_iter()
        .map(|row| {
            let latency = Duration::from_secs_f64(row.latency);
            (row.job_id, Completed::Written { in_step: row.in_step, latency })
        })
        .collect();
    if written.len() < completions.len() {
        for job_id in still_ours(db, completions).await? {
            written.entry(job_id).or_insert(Completed::Locked);
        }
    }
    let settled = completions
        .iter()
        .map(|completion| written.remove(&completion.job.id).unwrap_or(Completed::LeaseLost));
    Ok(settled.collect())
}

/// Jobs whose lease holds: where nothing was written, their relay's row was locked.
async fn still_ours(db: &PgPool, completions: &[Completion]) -> Result<Vec<String>, sqlx::Error> {
    let column = |text: fn(&Completion) -> &str| -> Vec<String> {
        completions.iter().map(|completion| text(completion).to_owned()).collect()
    };
    sqlx::query_scalar!(
        r#"select job.id as "id!"
           from unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::bigint[])
               as asked (job_id, worker, attempt, relay_id, epoch)
           join apalis.jobs job on job.id = asked.job_id and job.lock_by = asked.worker
                               and job.attempts = asked.attempt - 1
           join relay on relay.id = asked.relay_id and relay.lease_job = job.id
                     and relay.lease_epoch = asked.epoch
           where job.status = 'Running'"#,
        &column(|c| &c.job.id),
        &column(|c| &c.job.worker),
        &completions.iter().map(|c| c.job.attempt).collect::<Vec<_>>(),
        &column(|c| c.lease.relay.id.as_str()),
        &completions.iter().map(|c| c.lease.epoch).collect::<Vec<_>>(),
    )
    .fetch_all(db)
    .await
}

/// Puts a job back without spending an attempt: due again after `delay`, key in hand, unless a
/// newer job waits already.
///
/// # Errors
/// The database did not answer.
pub async fn snooze(
    db: &PgPool,
    job: &Job,
    relay_id: &RelayId,
    delay: Duration,
) -> Result<Settled<()>, sqlx::Error> {
    let mut tx = db.begin().await?;
    sqlx::query!("select id from relay where id = $1 for update", relay_id.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let written = sqlx::query!(
        r#"update apalis.jobs job
           set status = case when newer.waits then 'Done' else 'Pending' end,
               idempotency_key = case when newer.waits then null else $5 end,
               done_at = case when newer.waits then now() end,
               last_result = case when newer.waits then '{"Ok": "superseded"}'::jsonb
                                  else job.last_result end,
               run_at = now() + make_interval(secs => $6), lock_by = null, lock_at = null
           from (select exists (select from apalis.jobs
                                where job_type = $4 and idempotency_key = $5 and id <> $1) as waits) newer
           where job.id = $1 and job.lock_by = $2 and job.attempts = $3
             and job.status in ('Queued', 'Running')"#,
        job.id,
        job.worker,
        job.attempt - 1,
        SYNC_RELAY,
        relay_key(relay_id),
        delay.as_secs_f64(),
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(written_or_lost(written.rows_affected()))
}

/// Ends a job that needed no call or has no relay, as `Done` with a word on why.
///
/// # Errors
/// The database did not answer.
pub async fn finish(
    db: impl PgExecutor<'_>,
    job: &Job,
    result: &Value,
) -> Result<Settled<()>, sqlx::Error> {
    end(db, job, "Done", &json!({ "Ok": result })).await
}

/// Ends a job that can never be done, with the reason.
///
/// # Errors
/// The database did not answer.
pub async fn kill(
    db: impl PgExecutor<'_>,
    job: &Job,
    reason: &str,
) -> Result<Settled<()>, sqlx::Error> {
    end(db, job, "Killed", &json!({ "Err": one_line(reason) })).await
}

/// A recurring job keeps its key, which says that its tick was run; others must not.
async fn end(
    db: impl PgExecutor<'_>,
    job: &Job,
    status: &str,
    result: &Value,
) -> Result<Settled<()>, sqlx::Error> {
    let ended = sqlx::query!(
        "update apalis.jobs
         set status = $4, attempts = $3 + 1, done_at = now(), lock_by = null, last_result = $5,
             idempotency_key = case when job_type = any($6) or idempotency_key like 'lane:%'
                                    then null else idempotency_key end
         where id = $1 and lock_by = $2 and attempts = $3 and status in ('Queued', 'Running')",
        job.id,
        job.worker,
        job.attempt - 1,
        status,
        result,
        &KEYED.map(str::to_owned),
    )
    .execute(db)
    .await?;
    Ok(written_or_lost(ended.rows_affected()))
}

fn written_or_lost(rows: u64) -> Settled<()> {
    if rows == 1 { Settled::Written(()) } else { Settled::LeaseLost }
}

/// What the activity of an attempt tells, whatever came of it.
pub(super) fn detail_of(job: &Job, generation: i64, attempt: &Attempt) -> Value {
    let mut detail = json!({
        "job": job.id,
        "attempt": job.attempt,
        "method": attempt.method,
        "duration_ms": u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        "generation": generation,
    });
    if let Some(note) = &attempt.note {
        detail["note"] = json!(note);
    }
    detail
}
