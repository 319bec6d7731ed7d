//! zooid instances: the domains that each serves, and the state of its breaker.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

use super::LEASE;
pub use super::breaker::probe_now;

/// The instance of every domain. The name of an instance is its API's URL without credentials.
#[derive(Debug, Clone, Default)]
pub struct Instances {
    /// The instance of every domain that is not in `by_domain`.
    pub default: String,
    /// The name of the instance by domain.
    pub by_domain: HashMap<String, String>,
    /// Limit of concurrent calls to one instance, over all processes.
    pub max_in_flight: i64,
}

impl Instances {
    /// Returns the name of the instance that serves `domain`.
    pub fn of(&self, domain: &str) -> &str {
        self.by_domain.get(domain).unwrap_or(&self.default)
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
    /// Outage failures since the last answer, counted up to 1,000.
    pub failures: i64,
    /// Attempts that call the instance now.
    pub in_flight: i64,
}

/// Returns every known instance, by name; at most 1,000.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Instance>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select name, opened_at, retry_at, failed_probes, last_error,
                  coalesce(retry_at <= now(), false) as "is_half_open!",
                  (select count(*) from (select from zooid_failure where instance = name limit 1000) f) as "failures!",
                  (select count(*) from apalis.jobs
                   where status = 'Running' and metadata->'instance' = name
                     and lock_at > now() - make_interval(secs => $1)) as "in_flight!"
           from zooid_instance order by name limit 1000"#,
        LEASE.as_secs_f64(),
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

/// Inserts the instances that are not known yet.
pub async fn register(db: impl PgExecutor<'_>, names: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into zooid_instance (name) select unnest($1::text[]) on conflict do nothing",
        names,
    )
    .execute(db)
    .await?;
    Ok(())
}
