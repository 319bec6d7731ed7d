//! zooid instances: the domains that each serves, and the state of its breaker.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

pub use super::probe::{Probe, probe};
use super::{hold, relay::COUNT_CAP};

/// The shortest lease.
const SHORTEST_LEASE: Duration = Duration::from_secs(30);
/// The part of a lease that is left for the claim and the settle.
const SETTLE: Duration = Duration::from_secs(10);
/// The longest time-out that a process may be configured with.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The instance of every domain. The name of an instance is its API's URL without credentials.
#[derive(Debug, Clone, Default)]
pub struct Instances {
    /// The instance of every domain that is not in `by_domain`.
    pub default: String,
    /// The name of the instance by domain.
    pub by_domain: HashMap<String, String>,
    /// Limit of concurrent calls to one instance, over all processes. The instance's own limit, which
    /// adapts to its latency, may be lower.
    pub max_in_flight: i64,
    /// The time within which a call is answered, or given up.
    pub timeout: Duration,
}

impl Instances {
    /// Returns the name of the instance that serves `domain`.
    pub fn of(&self, domain: &str) -> &str {
        self.by_domain.get(domain).unwrap_or(&self.default)
    }

    /// Returns how long a claim holds its relay: time for two calls, at least 30 s. An attempt makes no
    /// call that could end after its lease; the lease is therefore also how long a call counts as in
    /// flight.
    pub fn lease(&self) -> Duration {
        lease_for(self.timeout)
    }

    /// Returns the name of every instance once, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.by_domain.values().cloned().collect();
        names.push(self.default.clone());
        names.sort();
        names.dedup();
        names
    }
}

fn lease_for(timeout: Duration) -> Duration {
    (2 * timeout + SETTLE).max(SHORTEST_LEASE)
}

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls are allowed.
    Closed,
    /// No call is allowed until `retry_at`.
    Open,
    /// The next job is the probe, or a probe is running.
    HalfOpen,
}

impl BreakerState {
    /// Returns the name that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// An instance with the state of its breaker and its load.
#[derive(Debug, Clone, Serialize)]
pub struct Instance {
    /// The URL of the instance's API, without credentials.
    pub name: String,
    /// Whether the breaker allows calls.
    pub breaker: BreakerState,
    /// When the breaker opened; `None` while it is closed.
    pub opened_at: Option<DateTime<Utc>>,
    /// When the next probe may start; `None` while the breaker is closed.
    pub retry_at: Option<DateTime<Utc>>,
    /// Failed probes in a row.
    pub failed_probes: i32,
    /// The last outage failure while the breaker was open; empty while it is closed.
    pub last_error: String,
    /// Whether the breaker is open because the instance refuses our key.
    pub refuses_key: bool,
    /// Outage failures since the last answer, counted up to 1,000.
    pub failures: i64,
    /// Attempts that call the instance now, or store their outcomes after it.
    pub in_flight: i64,
    /// The relays whose jobs wait for the instance, counted up to [`COUNT_CAP`].
    pub waiting: i64,
    /// The calls in flight that the instance has shown to bear; `None` before its first answer. The
    /// operator's limit applies too.
    pub calls_allowed: Option<f64>,
    /// When that limit was last lowered, because calls were slow or not answered.
    pub limited_at: Option<DateTime<Utc>>,
    /// When a process last had the instance in its configuration.
    pub seen_at: DateTime<Utc>,
    /// Whether no process has had it in its configuration for ten minutes. It needs no attention then.
    pub is_forgotten: bool,
}

impl Instance {
    /// Whether an operator should know: calls are not allowed, although a process wants to make some.
    pub fn is_out(&self) -> bool {
        self.breaker != BreakerState::Closed && !self.is_forgotten
    }
}

/// Returns every known instance, by name; at most 1,000.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Instance>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select name, opened_at, retry_at, failed_probes, last_error, calls_allowed, limited_at, seen_at,
                  refuses_key,
                  seen_at < now() - interval '10 minutes' as "is_forgotten!",
                  coalesce(retry_at <= now(), false) as "is_half_open!",
                  (select count(*) from (select from zooid_failure where instance = name limit 1000) f) as "failures!",
                  (select count(*) from apalis.jobs
                   where status = 'Running' and metadata->'instance' = name
                     and lock_at > now() - make_interval(secs => $1)) as "in_flight!",
                  (select count(*) from (select from apalis.jobs
                   where status = 'Pending' and metadata->'held_by' = name limit $2) w) as "waiting!"
           from zooid_instance order by name limit 1000"#,
        lease_for(LONGEST_TIMEOUT).as_secs_f64(),
        COUNT_CAP,
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
        refuses_key: row.refuses_key,
        failures: row.failures,
        in_flight: row.in_flight,
        waiting: row.waiting,
        calls_allowed: row.calls_allowed,
        limited_at: row.limited_at,
        seen_at: row.seen_at,
        is_forgotten: row.is_forgotten,
    });
    Ok(instances.collect())
}

/// Notes that a process has these instances in its configuration. Writes at most once a minute.
pub async fn register(db: impl PgExecutor<'_>, names: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into zooid_instance as known (name)
         select named from unnest($1::text[]) named
         where not exists (select from zooid_instance
                           where name = named and seen_at > now() - interval '1 minute')
         order by named
         on conflict (name) do update set seen_at = now()",
        names,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Why an instance was not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// There is no such instance.
    #[error("there is no zooid instance {0}: see `tender instance list`")]
    Unknown(String),
    /// A process has it in its configuration.
    #[error(
        "{0} is in the configuration of a running process, which would register it again: stop the process, or remove the instance from ZOOID_API_URL and ZOOID_INSTANCES first"
    )]
    InUse(String),
    /// The database is unreachable or refused a statement.
    #[error("failed to forget the instance")]
    Database(#[from] sqlx::Error),
}

/// Removes an instance that no process has had in its configuration for ten minutes, and its failures.
/// Jobs that its breaker held are released; they go to the instance that serves their domain now.
///
/// # Errors
/// [`ForgetError`]; then nothing was removed.
pub async fn forget(db: &PgPool, name: &str) -> Result<(), ForgetError> {
    let mut tx = crate::database::begin(db).await?;
    let row = sqlx::query!(
        r#"select seen_at < now() - interval '10 minutes' as "is_forgotten!"
           from zooid_instance where name = $1 for update"#,
        name,
    )
    .fetch_optional(&mut *tx)
    .await?;
    match row {
        None => return Err(ForgetError::Unknown(name.to_owned())),
        Some(row) if !row.is_forgotten => return Err(ForgetError::InUse(name.to_owned())),
        Some(_) => {}
    }
    sqlx::query!("delete from zooid_failure where instance = $1", name).execute(&mut *tx).await?;
    sqlx::query!("delete from zooid_instance where name = $1", name).execute(&mut *tx).await?;
    hold::release_of(&mut *tx, name).await?;
    tx.commit().await?;
    Ok(())
}
