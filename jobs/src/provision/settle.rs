//! Settling attempts that reached zooid. The relay, its activity and the job's row commit together, each
//! under a guard: the relay by its lease's epoch, the job by id, worker and attempt. A guard that
//! matches no row means that another worker took over; then nothing is written.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Lease, hold, relay::RelayId};
use crate::queue::Job;

/// What an attempt did, for its activity.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// The method of the last request; `None` if there was no request.
    pub method: Option<&'static str>,
    /// The time from the claim to the answer.
    pub duration: Duration,
    /// A note for the operator about a success that was not plain.
    pub note: Option<String>,
}

/// An attempt that reached zooid.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The job.
    pub job: Job,
    /// The lease under which zooid was called.
    pub lease: Lease,
    /// What the attempt did.
    pub attempt: Attempt,
    /// The instance that answered.
    pub instance: String,
    /// The body that was sent, with its secrets masked.
    pub sent: Value,
}

/// The result of a completion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Completed {
    /// The success was stored.
    Written {
        /// Whether the relay is in step now. It is not if a mutation came during the attempt; the
        /// mutation's own job does the rest.
        in_step: bool,
        /// The time from the relay's last change until now.
        latency: Duration,
    },
    /// The job or the lease belongs to another worker now; nothing was written.
    LeaseLost,
    /// A transaction holds the relay's row; nothing was written, and the caller may ask again.
    Locked,
}

/// Settles attempts that reached zooid, all in one statement, each under its own guards. Returns the
/// results in the order of `completions`. The instances have answered: their runs of outage failures
/// end, and open breakers close.
///
/// # Errors
/// See [`provision`](super). Asking again is harmless, because every write is guarded.
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
    let rows = sqlx::query_file!(
        "src/provision/complete.sql",
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
        // The success is stored; the next round of `release_held` releases the rest.
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

/// Returns the jobs whose leases still hold. If nothing was written for one of them, its relay's row
/// was locked.
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

/// The part of an activity's detail that successes and failures share.
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
