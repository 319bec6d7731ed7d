//! Failing: how an attempt that did not reach zooid is settled, on the schedule or for good. The
//! outcome table of `docs/ARCHITECTURE.md` is here.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use super::{
    Attempt, Job, Lease, SYNC_RELAY, Settled, hold,
    instance::{self, BreakerPolicy, Instances},
    relay_key,
    settle::{detail_of, one_line},
};
use crate::{
    activity::{self, ActivityType},
    backoff::Backoff,
    relay::{FailureKind, RelayId},
};

/// What a failed attempt says about the instance that it called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It answered, below 500: it is there.
    Answered,
    /// No answer, or a 5xx.
    Outage,
    /// It was not called.
    NotCalled,
}

/// Why an attempt failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Whether it may pass by itself.
    pub kind: FailureKind,
    /// One line for people.
    pub message: String,
    /// zooid's HTTP status, if it answered.
    pub status: Option<u16>,
    /// How long zooid asked us to wait.
    pub retry_after: Option<Duration>,
    /// What it says about the instance.
    pub reached: Reached,
}

impl Failure {
    /// A failure with `message` made fit to be stored: one line, never empty.
    pub fn new(kind: FailureKind, message: &str) -> Self {
        let line = one_line(message);
        let message = if line.is_empty() { "failed without a word".to_owned() } else { line };
        Self { kind, message, status: None, retry_after: None, reached: Reached::NotCalled }
    }
}

/// What became of a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Tried again at this time.
    RetryAt(DateTime<Utc>),
    /// Not tried again by itself.
    GaveUp,
    /// A newer change has its own job; this one ends.
    Superseded,
    /// The instance is out: tried again at this time, or when its breaker closes; no attempt spent.
    Held(DateTime<Utc>),
}

/// What settling a failure goes by.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// When it is tried again.
    pub backoff: &'a Backoff,
    /// When an instance counts as out.
    pub breaker: &'a BreakerPolicy,
    /// Which instance serves which domain.
    pub instances: &'a Instances,
}

/// Settles a failed attempt: on the schedule, or for good. Without a lease (the attempt died
/// before it had one) only the job's guard applies.
///
/// # Errors
/// The database did not answer; the caller tries again, and the guards make that harmless.
pub async fn fail(
    db: &PgPool,
    job: &Job,
    relay_id: &RelayId,
    lease: Option<&Lease>,
    attempt: &Attempt,
    failure: &Failure,
    rules: Rules<'_>,
) -> Result<Settled<Verdict>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let Some(held) = lock_relay(&mut tx, job, relay_id, lease).await? else {
        return Ok(Settled::LeaseLost);
    };
    let news = tell_instance(&mut tx, job, relay_id, lease, failure, rules).await?;
    let is_current = lease.is_none_or(|lease| lease.relay.generation == held.generation);
    let plan =
        Plan::new(job, failure, rules.backoff, is_current, held.has_newer_job, news.open_for);
    let held_by = news.open_for.and(lease).map(|l| rules.instances.of(&l.relay.zooid_domain));
    let written = write_job(&mut tx, job, relay_id, failure, rules.backoff, plan, held_by).await?;
    let Some(run_at) = written else {
        return Ok(Settled::LeaseLost);
    };
    let verdict = plan.verdict(run_at);
    let attempts = plan.attempts().filter(|_| is_current);
    write_relay(&mut tx, job, relay_id, failure, attempts, verdict).await?;
    if matches!(verdict, Verdict::Held(_)) {
        tx.commit().await?; // as if it had not been tried
        return Ok(Settled::Written(verdict));
    }
    let generation = lease.map_or(held.generation, |lease| lease.relay.generation);
    let mut detail = detail_of(job, generation, attempt);
    detail["error"] = json!(failure.message);
    detail["status"] = json!(failure.status);
    detail["kind"] = json!(failure.kind);
    detail["retry_at"] = match verdict {
        Verdict::RetryAt(at) => json!(at.timestamp()),
        Verdict::GaveUp | Verdict::Superseded | Verdict::Held(_) => Value::Null,
    };
    if verdict == Verdict::Superseded {
        detail["superseded"] = json!(true);
    }
    let tenant = &held.tenant_pubkey;
    activity::append(&mut tx, relay_id, tenant, ActivityType::FailRelaySync, &detail).await?;
    tx.commit().await?;
    if let Some(relays) = news.closed {
        // Written is written; the next round of the rescue releases what is left.
        let _the_next_round_does_it = hold::release(db, &relays).await;
    }
    Ok(Settled::Written(verdict))
}

/// What a failure did to its instance's breaker.
#[derive(Default)]
struct News {
    /// It is open: seconds until the next probe.
    open_for: Option<f64>,
    /// It closed: the relays whose calls had failed.
    closed: Option<Vec<String>>,
}

async fn tell_instance(
    tx: &mut PgConnection,
    job: &Job,
    relay_id: &RelayId,
    lease: Option<&Lease>,
    failure: &Failure,
    rules: Rules<'_>,
) -> Result<News, sqlx::Error> {
    let Some(lease) = lease else { return Ok(News::default()) };
    let name = rules.instances.of(&lease.relay.zooid_domain);
    Ok(match failure.reached {
        Reached::NotCalled => News::default(),
        Reached::Answered => {
            News { closed: instance::record_answer(tx, name).await?, open_for: None }
        }
        Reached::Outage => {
            let last = rules.backoff.max_attempts();
            let is_last = u32::try_from(job.attempt).is_ok_and(|attempt| attempt >= last);
            let open_for = instance::record_outage(
                tx,
                name,
                relay_id,
                job,
                is_last,
                &failure.message,
                rules.breaker,
            );
            News { open_for: open_for.await?, closed: None }
        }
    })
}

struct Held {
    tenant_pubkey: String,
    generation: i64,
    has_newer_job: bool,
}

/// Locks the relay, if the lease is still this attempt's. The newer job is looked for only then,
/// by a statement of its own: it may have been committed while we waited for the lock.
async fn lock_relay(
    tx: &mut PgConnection,
    job: &Job,
    relay_id: &RelayId,
    lease: Option<&Lease>,
) -> Result<Option<Held>, sqlx::Error> {
    let relay = sqlx::query!(
        "select tenant_pubkey, generation from relay
         where id = $1 and ($2::bigint is null or (lease_epoch = $2 and lease_job = $3))
         for update",
        relay_id.as_str(),
        lease.map(|lease| lease.epoch),
        job.id,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(relay) = relay else { return Ok(None) };
    let has_newer_job = sqlx::query_scalar!(
        r#"select exists (select from apalis.jobs
                          where job_type = $1 and idempotency_key = $2 and id <> $3) as "waits!""#,
        SYNC_RELAY,
        relay_key(relay_id),
        job.id,
    )
    .fetch_one(tx)
    .await?;
    let (tenant_pubkey, generation) = (relay.tenant_pubkey, relay.generation);
    Ok(Some(Held { tenant_pubkey, generation, has_newer_job }))
}

/// What to write on the job's row.
#[derive(Debug, Clone, Copy)]
enum Plan {
    /// `Failed`, due after the delay, key in hand.
    Retry { attempts: i32, delay: Duration },
    /// `Killed`.
    GiveUp { attempts: i32 },
    /// `Done`: a newer job waits.
    Supersede { attempts: i32 },
    /// `Pending`, due now: the relay moved on and its own job is missing.
    StartOver,
    /// `Pending`, attempts as they were, due when the instance may be asked again.
    Hold { attempts: i32, seconds: f64 },
}

impl Plan {
    /// Attempts spent, for the relay's row; `None` when its row stays as it is.
    fn attempts(self) -> Option<i32> {
        match self {
            Self::Retry { attempts, .. }
            | Self::GiveUp { attempts }
            | Self::Supersede { attempts } => Some(attempts),
            Self::StartOver => Some(0),
            Self::Hold { .. } => None,
        }
    }

    fn new(
        job: &Job,
        failure: &Failure,
        backoff: &Backoff,
        is_current: bool,
        has_newer_job: bool,
        open_for: Option<f64>,
    ) -> Self {
        let last = i32::try_from(backoff.max_attempts()).unwrap_or(i32::MAX);
        // A job that kills its process comes back past the cap; it ends as the last attempt.
        let attempts = job.attempt.min(last);
        if has_newer_job {
            return Self::Supersede { attempts };
        }
        if let Some(seconds) = open_for {
            return Self::Hold { attempts: if is_current { job.attempt - 1 } else { 0 }, seconds };
        }
        if !is_current {
            return Self::StartOver;
        }
        let delay = match failure.kind {
            FailureKind::Permanent => None,
            FailureKind::Transient => {
                backoff.delay(u32::try_from(job.attempt).unwrap_or(1), failure.retry_after)
            }
        };
        delay.map_or(Self::GiveUp { attempts }, |delay| Self::Retry { attempts, delay })
    }

    fn verdict(self, run_at: DateTime<Utc>) -> Verdict {
        match self {
            Self::Retry { .. } | Self::StartOver => Verdict::RetryAt(run_at),
            Self::GiveUp { .. } => Verdict::GaveUp,
            Self::Supersede { .. } => Verdict::Superseded,
            Self::Hold { .. } => Verdict::Held(run_at),
        }
    }
}

/// The job's row, under its guard; its `run_at`, or `None` when the guard found nothing.
async fn write_job(
    tx: &mut PgConnection,
    job: &Job,
    relay_id: &RelayId,
    failure: &Failure,
    backoff: &Backoff,
    plan: Plan,
    held_by: Option<&str>,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let (status, attempts, delay) = match plan {
        Plan::Retry { attempts, delay } => ("Failed", attempts, Some(delay)),
        Plan::StartOver => ("Pending", 0, Some(Duration::ZERO)),
        Plan::Hold { attempts, seconds } => (
            "Pending",
            attempts,
            Some(Duration::from_secs_f64(seconds + hold::spread(seconds) / 2.0)),
        ),
        Plan::GiveUp { attempts } => ("Killed", attempts, None),
        Plan::Supersede { attempts } => ("Done", attempts, None),
    };
    sqlx::query_scalar!(
        "update apalis.jobs
         set status = $4, attempts = $5, max_attempts = greatest($6, $5 + 1),
             idempotency_key = case when $7::float8 is null then null else $8 end,
             run_at = case when $7 is null then run_at
                           else now() + make_interval(secs => $7 * (1 + (random() * 2 - 1) * $9::float8)) end,
             done_at = case when $7 is null then now() end,
             metadata = case when $4 = 'Killed' then hstore('relay', $12)
                             when $11::text is null then ''::hstore else hstore('held_by', $11) end,
             last_result = $10, lock_by = null, lock_at = null
         where id = $1 and lock_by = $2 and attempts = $3 and status in ('Queued', 'Running')
         returning run_at",
        job.id,
        job.worker,
        job.attempt - 1,
        status,
        attempts,
        i32::try_from(backoff.max_attempts()).unwrap_or(i32::MAX),
        delay.map(|delay| delay.as_secs_f64()),
        relay_key(relay_id),
        backoff.jitter(),
        json!({ "Err": failure.message }),
        held_by.filter(|_| delay.is_some()),
        relay_id.as_str(),
    )
    .fetch_optional(tx)
    .await
}

/// The relay's columns. An attempt for an older generation (`attempts` is `None`) only returns its
/// lease: its failure says nothing about what is wanted now.
async fn write_relay(
    tx: &mut PgConnection,
    job: &Job,
    relay_id: &RelayId,
    failure: &Failure,
    attempts: Option<i32>,
    verdict: Verdict,
) -> Result<(), sqlx::Error> {
    let retry_at = match verdict {
        Verdict::RetryAt(at) => Some(at),
        Verdict::GaveUp | Verdict::Superseded | Verdict::Held(_) => None,
    };
    sqlx::query!(
        "update relay
         set sync_error = case when $3 then $4 else sync_error end,
             failure_kind = case when $3 then $5 else failure_kind end,
             attempts = case when $3 then $6 else attempts end,
             retry_at = case when $3 then $7 else retry_at end,
             exhausted_at = case when $3 and $8 then now() when $3 then null else exhausted_at end,
             lease_owner = case when lease_job = $2 then null else lease_owner end,
             lease_until = case when lease_job = $2 then null else lease_until end,
             lease_job = case when lease_job = $2 then null else lease_job end
         where id = $1",
        relay_id.as_str(),
        job.id,
        attempts.is_some(),
        failure.message,
        failure.kind.as_str(),
        attempts.unwrap_or_default(),
        retry_at,
        verdict == Verdict::GaveUp,
    )
    .execute(tx)
    .await?;
    Ok(())
}
