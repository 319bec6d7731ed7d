//! The variables of the workers' runtime and of the retention of jobs.

use std::{collections::HashMap, time::Duration};

use tender_jobs::queue::Retention;
use tender_workers::runtime::{Listen, Settings, Vitals};

use super::{Env, is_postgres_url};

pub(super) fn runtime(env: &mut Env) -> Settings {
    let (queues, concurrency) = (None, HashMap::new());
    let vitals = Vitals::default();
    Settings { queues, concurrency, listen: listen(env), process: process(), vitals }
}

pub(super) fn retention(env: &mut Env) -> Retention {
    let hours = |hours: f64| Duration::from_secs_f64(3600.0 * hours);
    Retention {
        done: hours(env.number("JOB_RETENTION_HOURS", 24.0, 0.01..=87_600.0)),
        killed: hours(env.number("FAILED_JOB_RETENTION_HOURS", 168.0, 0.01..=87_600.0)),
    }
}

/// Reads how long activity and operators' actions are kept.
pub(super) fn history(env: &mut Env) -> Duration {
    Duration::from_hours(24 * env.number("ACTIVITY_RETENTION_DAYS", 365, 1..=36_500))
}

/// Returns version, host and process id, such as `0.1.0 host:4711`, for the list of workers.
fn process() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let host = host.unwrap_or_else(|| "unknown".to_owned());
    format!("{} {host}:{}", env!("CARGO_PKG_VERSION"), std::process::id())
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
