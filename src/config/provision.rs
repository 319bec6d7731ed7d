//! The variables of provisioning: zooid, media and calls of its relays, retries, and the breaker.

use std::{collections::HashMap, time::Duration};

use nostr::key::Keys;
use reqwest::Url;
use secrecy::SecretString;
use tender_jobs::provision::{
    BreakerPolicy,
    backoff::{Backoff, InvalidBackoff},
    instance::LONGEST_TIMEOUT,
};
use tender_workers::{
    provision::{
        Settings,
        zooid::{Blossom, DEFAULT_TIMEOUT, Livekit, ZooidSettings},
    },
    runtime::Schedule,
};

use super::{Env, Needs, http_url};

/// The longest time-out of a call, in seconds: a stopping process waits 25 s for its calls.
const LONGEST: f64 = LONGEST_TIMEOUT.as_secs_f64();
/// The variables of the bucket for media, which are set together.
const S3: [&str; 4] =
    ["BLOSSOM_S3_REGION", "BLOSSOM_S3_BUCKET", "BLOSSOM_S3_ACCESS_KEY", "BLOSSOM_S3_SECRET_KEY"];

/// Reads the settings of provisioning.
pub(super) fn settings(env: &mut Env) -> Settings {
    let schedule = "0 * * * * *";
    let reconcile = env.parse("RECONCILE_SCHEDULE", schedule, |text| text.parse().ok());
    let rest = env.number("RECONCILE_EXHAUSTED_AFTER_SECS", 21_600, 0..=31_536_000);
    let round: f64 = env.number("RELAY_REASSERT_DAYS", 7.0, 0.0..=3650.0);
    Settings {
        concurrency: env.number("RELAY_SYNC_CONCURRENCY", 16, 1..=1000),
        backoff: backoff(env),
        recreate_missing: env.flag("RELAY_RECREATE_MISSING", true),
        reconcile_schedule: reconcile.unwrap_or_else(|| every_minute(schedule)),
        exhausted_after: Duration::from_secs(rest),
        reassert_within: Duration::from_secs_f64(86_400.0 * round),
        breaker: breaker(env),
        max_in_flight: env.number("ZOOID_MAX_IN_FLIGHT", 32, 1..=10_000),
        history: super::runtime::history(env),
    }
}

#[expect(clippy::expect_used, reason = "a literal, parsed by a test too")]
fn every_minute(schedule: &str) -> Schedule {
    schedule.parse().expect("the default schedule is a cron expression")
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

/// Reads the key that signs requests to zooid.
pub(super) fn robot(env: &mut Env) -> Option<Keys> {
    env.parse("ROBOT_SECRET", "nsec1… or 64 hex digits", |text| Keys::parse(text).ok())
}

pub(super) fn zooid(
    env: &mut Env,
    needs: Needs,
    instances: HashMap<String, Url>,
    robot: Option<Keys>,
) -> Option<ZooidSettings> {
    let url = env.parse("ZOOID_API_URL", "http://localhost:3334", http_url);
    let instance_urls = instances.values().map(|url| ("ZOOID_INSTANCES", url));
    for (name, url) in url.iter().map(|url| ("ZOOID_API_URL", url)).chain(instance_urls) {
        refuse_credentials(env, name, url);
    }
    if url.is_none() && needs == Needs::Zooid {
        env.missing("ZOOID_API_URL", "http://localhost:3334");
    }
    if robot.is_none() && (needs == Needs::Zooid || (needs == Needs::Wings && url.is_some())) {
        env.missing("ROBOT_SECRET", "the output of `tender keygen`");
    }
    let (blossom, livekit) = (blossom(env), livekit(env));
    let timeout = env.number("ZOOID_TIMEOUT_SECS", DEFAULT_TIMEOUT.as_secs_f64(), 0.1..=LONGEST);
    Some(ZooidSettings {
        default_url: url?,
        instances,
        robot: robot?,
        blossom,
        livekit,
        timeout: Duration::from_secs_f64(timeout),
    })
}

/// zooid takes no user and no password, and the URL of an instance is its name in pages and metrics.
fn refuse_credentials(env: &mut Env, name: &'static str, url: &Url) {
    if !url.username().is_empty() || url.password().is_some() {
        let problem = "must not contain a user or a password: ROBOT_SECRET signs the requests; \
                       e.g. http://localhost:3334";
        env.problem(name, problem.to_owned());
    }
}

/// Reads the S3 bucket for media. The endpoint is optional, the other variables are not.
pub(super) fn blossom(env: &mut Env) -> Option<Blossom> {
    env.group(&S3, &["BLOSSOM_S3_ENDPOINT"]);
    let endpoint = env.text("BLOSSOM_S3_ENDPOINT").unwrap_or_default();
    let region = env.text("BLOSSOM_S3_REGION");
    let bucket = env.text("BLOSSOM_S3_BUCKET");
    let access_key = env.text("BLOSSOM_S3_ACCESS_KEY").map(SecretString::from);
    let secret_key = env.text("BLOSSOM_S3_SECRET_KEY").map(SecretString::from);
    Some(Blossom {
        endpoint,
        region: region?,
        bucket: bucket?,
        access_key: access_key?,
        secret_key: secret_key?,
    })
}

fn livekit(env: &mut Env) -> Option<Livekit> {
    env.group(&["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"], &[]);
    let server_url = env.text("LIVEKIT_URL");
    let api_key = env.text("LIVEKIT_API_KEY").map(SecretString::from);
    let api_secret = env.text("LIVEKIT_API_SECRET").map(SecretString::from);
    Some(Livekit { server_url: server_url?, api_key: api_key?, api_secret: api_secret? })
}
