//! The workers.

use std::{collections::HashMap, time::Duration};

use nostr::key::Keys;
use tender_jobs::{
    backoff::{Backoff, InvalidBackoff},
    queue::{self, Retention, instance::BreakerPolicy},
};
use tender_workers::{Listen, Schedule, Settings};

use super::{Env, is_postgres_url, sync};

pub(super) fn work(env: &mut Env, robot: Option<&Keys>) -> Settings {
    let seconds = Duration::from_secs;
    let hours = |hours: f64| Duration::from_secs_f64(3600.0 * hours);
    let schedule = "0 * * * * *";
    let reconcile = env.parse("RECONCILE_SCHEDULE", schedule, |text| text.parse().ok());
    let default_schedule = || -> Schedule { every_minute(schedule) };
    Settings {
        queues: queue::QUEUES.map(str::to_owned).to_vec(),
        sync_concurrency: env.number("RELAY_SYNC_CONCURRENCY", 16, 1..=1000),
        concurrency: HashMap::new(),
        breaker: breaker(env),
        max_in_flight: env.number("ZOOID_MAX_IN_FLIGHT", 32, 1..=10_000),
        listen: listen(env),
        sync: sync::sync(env, robot),
        process: process(),
        backoff: backoff(env),
        recreate_missing: env.flag("RELAY_RECREATE_MISSING", true),
        reconcile_schedule: reconcile.unwrap_or_else(default_schedule),
        exhausted_after: seconds(env.number(
            "RECONCILE_EXHAUSTED_AFTER_SECS",
            21_600,
            0..=31_536_000,
        )),
        retention: Retention {
            done: hours(env.number("JOB_RETENTION_HOURS", 24.0, 0.01..=87_600.0)),
            killed: hours(env.number("FAILED_JOB_RETENTION_HOURS", 168.0, 0.01..=87_600.0)),
        },
    }
}

#[expect(clippy::expect_used, reason = "a literal, parsed by a test too")]
fn every_minute(schedule: &str) -> Schedule {
    schedule.parse().expect("the default schedule is a cron expression")
}

/// Where a process runs, for people: `0.1.0 host:4711`.
fn process() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let host = host.unwrap_or_else(|| "unknown".to_owned());
    format!("{} {host}:{}", env!("CARGO_PKG_VERSION"), std::process::id())
}

fn breaker(env: &mut Env) -> BreakerPolicy {
    let seconds = Duration::from_secs_f64;
    let wait = seconds(env.number("BREAKER_WAIT_SECS", 30.0, 0.1..=86_400.0));
    let wait_cap = seconds(env.number("BREAKER_WAIT_CAP_SECS", 300.0, 0.1..=86_400.0));
    if wait_cap < wait {
        env.problem("BREAKER_WAIT_CAP_SECS", "is below BREAKER_WAIT_SECS; e.g. 300".to_owned());
    }
    BreakerPolicy { wait, wait_cap, ..BreakerPolicy::default() }
}

fn backoff(env: &mut Env) -> Backoff {
    let base = env.number("RELAY_SYNC_RETRY_BASE_SECS", 30, 1..=86_400);
    let cap = env.number("RELAY_SYNC_RETRY_CAP_SECS", 900, 1..=86_400);
    let retries = env.number("RELAY_SYNC_RETRY_MAX_ATTEMPTS", 6, 1..=100);
    let jitter = env.number("RELAY_SYNC_RETRY_JITTER", 0.1, 0.0..=0.5);
    let backoff =
        Backoff::new(Duration::from_secs(base), Duration::from_secs(cap), retries, jitter);
    backoff.unwrap_or_else(|error: InvalidBackoff| {
        env.problem("RELAY_SYNC_RETRY_CAP_SECS", format!("{error}; e.g. 900 with a base of 30"));
        Backoff::default()
    })
}

fn listen(env: &mut Env) -> Listen {
    let example = "postgres://user:password@localhost/tender, or off";
    let listen = env.parse("DATABASE_LISTEN_URL", example, |text| match text {
        "off" => Some(Listen::Off),
        url if is_postgres_url(url) => {
            url.parse().ok().map(|options| Listen::At(Box::new(options)))
        }
        _ => None,
    });
    listen.unwrap_or_default()
}
