//! The outage breaker of a zooid instance. All workers share it through the instance's row.
//!
//! ```text
//!            ≥ 10 failures in a row, ≥ 5 relays, 60 s            wait is over
//!   closed ────────────────────────────────────────▶ open ─────────────────────▶ half-open
//!      ▲                                              ▲                              │ one claim
//!      │ any answer below 500                         │ probe failed: wait × 2       ▼
//!      └──────────────────────────────────────────────┴─────────────────────────── probing
//! ```
//!
//! - While the breaker is open no call starts; jobs are put back with their attempts unchanged.
//! - While it is half-open one job at a time is the probe. If the probe's worker dies, another job
//!   becomes the probe when the lease ends.
//! - A failure that finds the breaker open, or opens it, spends no attempt.
//! - An answer below 500, to any call, closes it.
//!
//! A failure is an *outage* failure if there was no answer, or a 5xx, or if the instance refused our
//! key. The last opens the breaker at once, because it cannot concern one relay alone; not if a call
//! succeeded within the last minute, because then only one of several processes has the wrong key.

use std::{collections::HashMap, time::Duration};

use sqlx::{PgConnection, PgPool};

use super::{SYNC_RELAY, instance::Instances, relay::RelayId};

/// How soon to ask again while a probe is under way.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// How long an outage failure counts; see [`record_outage`].
const REMEMBERED: Duration = Duration::from_hours(24);

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// The number of outage failures in a row that opens it.
    pub failures: i64,
    /// The number of relays that these failures must concern.
    pub relays: i64,
    /// The time in which they must happen.
    pub within: Duration,
    /// The wait before the first probe.
    pub wait: Duration,
    /// The longest wait; each failed probe doubles the wait up to this.
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

/// Returns the instances whose breakers refuse claims, with the time until a claim may succeed.
pub(super) async fn closed_for(
    db: &PgPool,
    instances: &Instances,
) -> Result<HashMap<String, Duration>, sqlx::Error> {
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
        open_for if open_for > 0.0 => Some((row.name, Duration::from_secs_f64(open_for))),
        _ if row.is_probed => Some((row.name, PROBE_WAIT)),
        _ => None,
    });
    Ok(closed.collect())
}

/// An outage failure.
pub(super) struct Outage<'a> {
    /// The instance that was called.
    pub(super) instance: &'a str,
    /// The relay that the call was for.
    pub(super) relay_id: &'a RelayId,
    /// The job, which may be the instance's probe.
    pub(super) job_id: &'a str,
    /// Whether the relay would give up now.
    pub(super) is_last_attempt: bool,
    /// Whether no call can succeed, which opens the breaker at once.
    pub(super) is_refusal: bool,
    /// The error, for people.
    pub(super) error: &'a str,
}

/// Records an outage failure. Returns the time until the next probe if the breaker is open now; the
/// failure then spends no attempt.
///
/// The breaker opens by its policy. It also opens if this was a relay's last attempt and as many relays
/// have failed since the last answer, however slowly: an outage must not exhaust a relay.
pub(super) async fn record_outage(
    tx: &mut PgConnection,
    outage: &Outage<'_>,
    policy: &BreakerPolicy,
) -> Result<Option<Duration>, sqlx::Error> {
    sqlx::query!("select name from zooid_instance where name = $1 for update", outage.instance)
        .fetch_optional(&mut *tx)
        .await?;
    sqlx::query!(
        "delete from zooid_failure
         where instance = $1 and failed_at < now() - make_interval(secs => $2)",
        outage.instance,
        REMEMBERED.as_secs_f64(),
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into zooid_failure (instance, relay_id, failed_at) values ($1, $2, clock_timestamp())",
        outage.instance,
        outage.relay_id.as_str(),
    )
    .execute(&mut *tx)
    .await?;
    let open_for = sqlx::query_file_scalar!(
        "src/provision/record_outage.sql",
        outage.instance,
        outage.job_id,
        outage.is_last_attempt,
        policy.within.as_secs_f64(),
        policy.failures,
        policy.relays,
        outage.error,
        policy.wait.as_secs_f64(),
        policy.wait_cap.as_secs_f64(),
        outage.is_refusal,
        SYNC_RELAY,
    )
    .fetch_optional(tx)
    .await?;
    Ok(open_for.map(Duration::from_secs_f64))
}

/// Notes on the instance that a relay gave up in an outage, if the instance has answered nobody since the
/// relay's previous attempt. Returns whether it did. A relay that was revived within the last ten minutes is
/// not noted again: its own document may be what makes zooid fail.
pub(super) async fn record_give_up(
    tx: &mut PgConnection,
    instance: &str,
    relay_id: &RelayId,
    attempts: i32,
) -> Result<bool, sqlx::Error> {
    let marked = sqlx::query!(
        "update zooid_instance set has_given_up = true
         where name = $1
           and (select count(*) from zooid_failure where instance = $1 and relay_id = $2) >= $3
           and not exists (select from relay
                           where id = $2 and revived_at > now() - interval '10 minutes')",
        instance,
        relay_id.as_str(),
        i64::from(attempts.min(2)),
    );
    Ok(marked.execute(tx).await?.rows_affected() == 1)
}

/// Lowers the limit of calls in flight of an instance that had more calls than it could answer.
pub(super) async fn record_overload(
    tx: &mut PgConnection,
    instance: &str,
    instances: &Instances,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select halve_calls($1, $2, $3)",
        instance,
        instances.max_in_flight,
        instances.timeout.as_secs_f64(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Records an answer: the run of failures is over. Returns `None` if nothing waited for it, else the
/// relays whose calls had failed if that closed an open breaker.
pub(super) async fn record_answer(
    tx: &mut PgConnection,
    instance: &str,
) -> Result<Option<Vec<RelayId>>, sqlx::Error> {
    let relays = sqlx::query_scalar!(
        r#"select record_answers(array[$1]) as "relays: Vec<RelayId>""#,
        instance,
    );
    relays.fetch_one(tx).await
}
