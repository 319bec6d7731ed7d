//! Settling attempts that reached zooid. The relay, its activity and the job's row commit together, each
//! under a guard: the relay by its lease's epoch, the job by id, worker and attempt. A guard that
//! matches no row means that another worker took over; then nothing is written.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};
use sqlx::{PgExecutor, PgPool};

use super::{Lease, SYNC_RELAY, hold, instance::Instances, relay::RelayId};
use crate::queue::{self, Job, Settled};

/// What an attempt did, for its activity.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// The method of the last request; `None` if there was no request.
    pub method: Option<&'static str>,
    /// The time from the claim to the answer.
    pub duration: Duration,
    /// The time that the last request took; zero if there was none.
    pub latency: Duration,
    /// The public key of the relay's own key, if this attempt gave it to zooid.
    pub identity: Option<String>,
    /// A note for the operator about a success that was not plain.
    pub note: Option<String>,
    /// The body that a failed attempt sent, with its secrets masked; `None` if it sent none.
    pub sent: Option<Value>,
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
        /// How many relays had waited for this answer, if it ended an outage of the instance. In a batch the
        /// first answer of the instance has it.
        released: Option<u64>,
    },
    /// The job or the lease belongs to another worker now; nothing was written.
    LeaseLost,
    /// A transaction holds the relay's row; nothing was written, and the caller may ask again.
    Locked,
    /// The relay's row was deleted; the job ended.
    Gone,
}

/// Settles attempts that reached zooid, all in one statement, each under its own guards. Returns the
/// results in the order of `completions`. The instances have answered: their runs of outage failures
/// end, open breakers close, and their limits of calls in flight adapt.
///
/// If zooid may still apply an earlier, unanswered call, the relay is in step and its job waits until it can
/// confirm that (`docs/adr/0014-unanswered-calls.md`).
///
/// # Errors
/// See [`provision`](super). Asking again is harmless, because every write is guarded.
pub async fn complete(
    db: &PgPool,
    completions: &[Completion],
    instances: &Instances,
) -> Result<Vec<Completed>, sqlx::Error> {
    let text = |text: fn(&Completion) -> &str| -> Vec<String> {
        completions.iter().map(|completion| text(completion).to_owned()).collect()
    };
    let number =
        |number: fn(&Completion) -> i64| -> Vec<i64> { completions.iter().map(number).collect() };
    let attempts: Vec<i32> = completions.iter().map(|completion| completion.job.attempt).collect();
    let identities: Vec<_> = completions.iter().map(|c| c.attempt.identity.clone()).collect();
    let seconds: Vec<f64> = completions.iter().map(|c| c.attempt.latency.as_secs_f64()).collect();
    let named: Vec<String> =
        completions.iter().map(|c| instances.of(&c.lease.relay.zooid_domain).to_owned()).collect();
    let rows = sqlx::query_file!(
        "src/provision/complete.sql",
        &text(|c| &c.job.id),
        &text(|c| &c.job.worker),
        &attempts,
        &text(|c| c.lease.relay.id.as_str()),
        &number(|c| c.lease.epoch),
        &number(|c| c.lease.relay.generation),
        &completions.iter().map(record_of).collect::<Vec<Value>>(),
        &named,
        &completions.iter().map(|c| c.sent.clone()).collect::<Vec<_>>(),
        &identities as &[Option<String>],
        &seconds,
        instances.lease().as_secs_f64(),
        SYNC_RELAY,
        instances.max_in_flight,
        instances.timeout.as_secs_f64(),
    )
    .fetch_all(db)
    .await?;
    let mut released = None;
    if let Some(relays) = rows.first().and_then(|row| row.failed_before.as_deref()) {
        // The success is stored; the next round of `release_waiting` releases the rest.
        released = hold::release(db, relays).await.ok();
    }
    for (freed, host) in rows.iter().filter_map(|row| row.freed.as_ref().zip(row.host.as_ref())) {
        let _the_next_round_does_it = hold::moved(db, freed, host).await;
    }
    let written = rows.into_iter().map(|row| {
        let latency = Duration::from_secs_f64(row.latency);
        let released = if row.was_out { released.take() } else { None };
        (row.job_id, Completed::Written { in_step: row.in_step, latency, released })
    });
    let mut written: HashMap<_, _> = written.collect();
    if written.len() < completions.len() {
        written.extend(unwritten(db, completions, &written).await?);
    }
    let settled = completions
        .iter()
        .map(|completion| written.remove(&completion.job.id).unwrap_or(Completed::LeaseLost));
    Ok(settled.collect())
}

/// The activity of a success; null for a relay that was in step before, unless there is a note.
fn record_of(completion: &Completion) -> Value {
    let (relay, attempt) = (&completion.lease.relay, &completion.attempt);
    if relay.synced && attempt.note.is_none() {
        return Value::Null;
    }
    detail_of(&completion.job, relay.generation, attempt)
}

/// Returns why nothing was written for some completions: the relay's row is locked, or it was deleted,
/// and then the job ends here. The others lost their leases.
async fn unwritten(
    db: &PgPool,
    completions: &[Completion],
    written: &HashMap<String, Completed>,
) -> Result<Vec<(String, Completed)>, sqlx::Error> {
    let mut found = Vec::new();
    for completion in completions.iter().filter(|c| !written.contains_key(&c.job.id)) {
        let (job, lease) = (&completion.job, &completion.lease);
        let row = sqlx::query!(
            r#"select coalesce(lease_job = $2 and lease_epoch = $3, false)
                   and exists (select from apalis.jobs
                               where id = $2 and coalesce(lock_by, '') = $4 and attempts = $5
                                 and coalesce(status, '') = 'Running')
                   as "is_ours!"
               from relay where id = $1"#,
            lease.relay.id.as_str(),
            job.id,
            lease.epoch,
            job.worker,
            job.attempt - 1,
        )
        .fetch_optional(db)
        .await?;
        let completed = match row {
            None => gone(db, job).await?.then_some(Completed::Gone),
            Some(row) => row.is_ours.then_some(Completed::Locked),
        };
        found.extend(completed.map(|completed| (job.id.clone(), completed)));
    }
    Ok(found)
}

/// Ends the job of a relay that does not exist any more. Returns false if another worker has the job.
pub(super) async fn gone(db: impl PgExecutor<'_>, job: &Job) -> Result<bool, sqlx::Error> {
    let ended = queue::finish(db, job, &json!("the relay does not exist any more")).await?;
    Ok(ended == Settled::Written(()))
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
    if let Some(sent) = &attempt.sent {
        detail["sent"] = sent.clone();
    }
    detail
}
