//! A zooid instance and its outage breaker. All workers share it through its row.
//!
//! ```text
//!            ≥ 10 failures in a row, ≥ 5 relays, 60 s            wait is over
//!   closed ────────────────────────────────────────▶ open ─────────────────────▶ half-open
//!      ▲                                              ▲                              │ one claim
//!      │ any answer below 500                         │ probe failed: wait × 2       ▼
//!      └──────────────────────────────────────────────┴─────────────────────────── probing
//! ```
//!
//! - While it is open no call starts; jobs are put back, attempts unchanged.
//! - While it is half-open one job at a time is the probe; a probe whose worker died makes way when
//!   its lease ends.
//! - A failure that finds the breaker open, or opens it, spends no attempt.
//! - An answer below 500, of whichever call, closes it.
//!
//! A failure is an *outage* failure when there was no answer, or a 5xx.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::Job;
use crate::relay::RelayId;

/// Which instance serves which domain, by name: its API's URL without credentials.
#[derive(Debug, Clone, Default)]
pub struct Instances {
    /// Serves every domain that has none of its own.
    pub default: String,
    /// Domain → instance.
    pub by_domain: HashMap<String, String>,
    /// Calls to one instance at the same time, over all processes.
    pub max_in_flight: i64,
}

impl Instances {
    /// The instance of a domain.
    pub fn of(&self, domain: &str) -> &str {
        self.by_domain.get(domain).unwrap_or(&self.default)
    }

    /// Every instance once, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.by_domain.values().cloned().collect();
        names.push(self.default.clone());
        names.sort();
        names.dedup();
        names
    }
}

/// When the breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Outage failures in a row.
    pub failures: i64,
    /// From at least so many relays.
    pub relays: i64,
    /// Within this time.
    pub within: Duration,
    /// The first wait until a probe.
    pub wait: Duration,
    /// Each failed probe doubles the wait, up to this.
    pub wait_cap: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failures: 10,
            relays: 5,
            within: Duration::from_mins(1),
            wait: Duration::from_secs(30),
            wait_cap: Duration::from_mins(5),
        }
    }
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls go.
    Closed,
    /// No call goes until `retry_at`.
    Open,
    /// The next job is the probe, or one is under way.
    HalfOpen,
}

impl BreakerState {
    /// The name shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// An instance as an operator sees it.
#[derive(Debug, Clone, Serialize)]
pub struct Instance {
    /// Its API's URL without credentials.
    pub name: String,
    /// Where its breaker stands.
    pub breaker: BreakerState,
    /// Since when it is not closed.
    pub opened_at: Option<DateTime<Utc>>,
    /// When the next probe may go.
    pub retry_at: Option<DateTime<Utc>>,
    /// Probes that failed in a row.
    pub failed_probes: i32,
    /// The last outage failure while it was open; empty when closed.
    pub last_error: String,
    /// Outage failures since its last answer.
    pub failures: i64,
    /// Attempts that call it now.
    pub in_flight: i64,
}

/// How long a call in flight counts at most: the longest lease, after which its request has ended.
const IN_FLIGHT_SECS: f64 = 30.0;
/// Look again after this when a probe is under way.
const PROBE_SECS: f64 = 1.0;
/// Outage failures are remembered for this long; see [`record_outage`].
const REMEMBERED_SECS: f64 = 3600.0;

/// Every known instance.
///
/// # Errors
/// The database did not answer.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Instance>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select name, opened_at, retry_at, failed_probes, last_error,
                  coalesce(retry_at <= now(), false) as "is_half_open!",
                  (select count(*) from (select from zooid_failure where instance = name limit 1000) f) as "failures!",
                  (select count(*) from apalis.jobs
                   where status = 'Running' and metadata->'instance' = name
                     and lock_at > now() - make_interval(secs => $1)) as "in_flight!"
           from zooid_instance order by name limit 1000"#,
        IN_FLIGHT_SECS,
    )
    .fetch_all(db)
    .await?;
    let instances = rows.into_iter().map(|row| Instance {
        breaker: match (row.opened_at, row.is_half_open) {
            (None, _) => BreakerState::Closed,
            (Some(_), false) => BreakerState::Open,
            (Some(_), true) => BreakerState::HalfOpen,
        },
        name: row.name,
        opened_at: row.opened_at,
        retry_at: row.retry_at,
        failed_probes: row.failed_probes,
        last_error: row.last_error,
        failures: row.failures,
        in_flight: row.in_flight,
    });
    Ok(instances.collect())
}

/// Makes instances known.
///
/// # Errors
/// The database did not answer.
pub async fn register(db: impl PgExecutor<'_>, names: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into zooid_instance (name) select unnest($1::text[]) on conflict do nothing",
        names,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends an open breaker's wait: the next job is its probe, and some are made due for it. False when
/// it is not open.
///
/// # Errors
/// The database did not answer.
pub async fn probe_now(db: &PgPool, name: &str) -> Result<bool, sqlx::Error> {
    let mut tx = db.begin().await?;
    let opened = sqlx::query!(
        "update zooid_instance set retry_at = now() where name = $1 and opened_at is not null",
        name,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update apalis.jobs set run_at = now() where id in (
             select id from apalis.jobs
             where status = 'Pending' and metadata->'held_by' = $1
             limit 5 for update skip locked)",
        name,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(opened.rows_affected() == 1)
}

/// The instances whose breakers stop claims, with the seconds until it is worth asking again.
pub(super) async fn closed_for(
    db: &PgPool,
    instances: &Instances,
) -> Result<HashMap<String, f64>, sqlx::Error> {
    let names = instances.names();
    let rows = sqlx::query!(
        r#"select name, extract(epoch from retry_at - now())::float8 as open_for,
                  coalesce(probe_until > now(), false) as "is_probed!"
           from zooid_instance where name = any($1)"#,
        &names,
    )
    .fetch_all(db)
    .await?;
    let closed = rows.into_iter().filter_map(|row| match row.open_for? {
        open_for if open_for > 0.0 => Some((row.name, open_for)),
        _ if row.is_probed => Some((row.name, PROBE_SECS)),
        _ => None,
    });
    Ok(closed.collect())
}

/// Notes an outage failure. `Some` when the breaker is open now: seconds until its next probe; the
/// failure then spends no attempt.
///
/// It opens by the policy; also when this was a relay's last attempt and as many relays have failed
/// since the last answer, however slowly: an outage must exhaust nobody.
pub(crate) async fn record_outage(
    tx: &mut PgConnection,
    instance: &str,
    relay_id: &RelayId,
    job: &Job,
    is_last_attempt: bool,
    error: &str,
    policy: &BreakerPolicy,
) -> Result<Option<f64>, sqlx::Error> {
    sqlx::query!("select name from zooid_instance where name = $1 for update", instance)
        .fetch_optional(&mut *tx)
        .await?;
    sqlx::query!(
        "delete from zooid_failure
         where instance = $1 and failed_at < now() - make_interval(secs => $2)",
        instance,
        REMEMBERED_SECS,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into zooid_failure (instance, relay_id, failed_at) values ($1, $2, clock_timestamp())",
        instance,
        relay_id.as_str(),
    )
    .execute(&mut *tx)
    .await?;
    let open_for = sqlx::query_scalar!(
        r#"with failed as (
               select count(*) as calls, count(distinct relay_id) as relays,
                      count(*) filter (where failed_at > now() - make_interval(secs => $4)) as recent_calls,
                      count(distinct relay_id)
                          filter (where failed_at > now() - make_interval(secs => $4)) as recent_relays
               from zooid_failure where instance = $1
           ), next as (
               select coalesce(opened_at, now()) as opened_at,
                      case when probe_job = $2 then failed_probes + 1 else failed_probes end as failed_probes,
                      probe_job is not distinct from $2 as is_probe, opened_at is null as opens
               from zooid_instance, failed
               where name = $1
                 and (opened_at is not null
                      or (recent_calls >= $5 and recent_relays >= $6)
                      or ($3 and relays >= $6))
           )
           update zooid_instance instance
           set opened_at = next.opened_at, last_error = $7, failed_probes = next.failed_probes,
               retry_at = case when next.is_probe or next.opens
                               then now() + make_interval(secs => least($8 * 2 ^ least(next.failed_probes, 20), $9))
                               else instance.retry_at end,
               probe_job = case when not next.is_probe then instance.probe_job end,
               probe_until = case when not next.is_probe then instance.probe_until end
           from next
           where instance.name = $1
           returning greatest(extract(epoch from instance.retry_at - now()), 0)::float8 as "open_for!""#,
        instance,
        job.id,
        is_last_attempt,
        policy.within.as_secs_f64(),
        policy.failures,
        policy.relays,
        error,
        policy.wait.as_secs_f64(),
        policy.wait_cap.as_secs_f64(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(open_for)
}

/// Notes an answer: the run of failures is over. `Some` when that closed an open breaker: the relays
/// whose calls had failed.
pub(crate) async fn record_answer(
    tx: &mut PgConnection,
    instance: &str,
) -> Result<Option<Vec<String>>, sqlx::Error> {
    let relays = sqlx::query_scalar!(
        "delete from zooid_failure where instance = $1 returning relay_id",
        instance,
    )
    .fetch_all(&mut *tx)
    .await?;
    let closed = sqlx::query!(
        "update zooid_instance
         set opened_at = null, retry_at = null, failed_probes = 0, probe_job = null,
             probe_until = null, last_error = ''
         where name = $1 and opened_at is not null",
        instance,
    )
    .execute(tx)
    .await?;
    Ok((closed.rows_affected() == 1).then_some(relays))
}
