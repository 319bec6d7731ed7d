//! The environment as a map that collects its invalid and missing variables.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Display,
    ops::RangeInclusive,
    str::FromStr,
};

use super::{Problem, file};

/// Every variable that is read, in the order of `.env.example`.
pub const NAMES: [&str; 54] = [
    "DATABASE_URL",
    "DATABASE_MAX_CONNECTIONS",
    "DATABASE_LISTEN_URL",
    "MIGRATE_ON_START",
    "TENDER_DATA_DIR",
    "TENDER_PG_BIN",
    "API_BIND",
    "API_BASE_URL",
    "METRICS_BIND",
    "API_RATE_LIMIT",
    "API_MAX_CONNECTIONS",
    "API_MAX_CONNECTIONS_PER_ADDRESS",
    "TRUSTED_PROXIES",
    "STATS_AUTH_ENABLED",
    "ADMIN_PUBKEYS",
    "VIEWER_PUBKEYS",
    "DASHBOARD_PASSWORD",
    "ZOOID_API_URL",
    "ZOOID_INSTANCES",
    "ZOOID_MAX_IN_FLIGHT",
    "ZOOID_TIMEOUT_SECS",
    "BREAKER_WAIT_SECS",
    "BREAKER_WAIT_CAP_SECS",
    "RELAY_DOMAIN",
    "ROBOT_SECRET",
    "RELAYS_PER_TENANT",
    "BLOSSOM_S3_ENDPOINT",
    "BLOSSOM_S3_REGION",
    "BLOSSOM_S3_BUCKET",
    "BLOSSOM_S3_ACCESS_KEY",
    "BLOSSOM_S3_SECRET_KEY",
    "LIVEKIT_URL",
    "LIVEKIT_API_KEY",
    "LIVEKIT_API_SECRET",
    "RELAY_SYNC_CONCURRENCY",
    "RELAY_SYNC_RETRY_BASE_SECS",
    "RELAY_SYNC_RETRY_CAP_SECS",
    "RELAY_SYNC_RETRY_MAX_ATTEMPTS",
    "RELAY_SYNC_RETRY_JITTER",
    "RELAY_RECREATE_MISSING",
    "RECONCILE_SCHEDULE",
    "RECONCILE_EXHAUSTED_AFTER_SECS",
    "RELAY_REASSERT_DAYS",
    "JOB_RETENTION_HOURS",
    "FAILED_JOB_RETENTION_HOURS",
    "ACTIVITY_RETENTION_DAYS",
    "RELAY_PRIVATE_KEY",
    "ALLOW_PRIVATE_UPSTREAMS",
    "MIRROR_PROFILE",
    "MIRROR_DEFAULTS",
    "API_KEY_HMAC_SECRET",
    "LOG_LEVEL",
    "LOG_FORMAT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Variables of earlier releases, with their present names.
const RENAMED: [(&str, &str); 2] =
    [("SCHEDULE_PROFILE", "MIRROR_PROFILE"), ("SYNC_DEFAULTS", "MIRROR_DEFAULTS")];

/// Variables by name, with the names that were read and the problems that were found.
#[derive(Debug, Default)]
pub struct Env {
    values: HashMap<String, String>,
    read: BTreeSet<&'static str>,
    problems: Vec<Problem>,
}

impl Env {
    /// Returns the process's environment and the file `.env`. The environment takes precedence.
    pub fn of_process() -> Self {
        let file = file::read();
        let process = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let env = Self::of(file.values.into_iter().chain(process));
        Self { problems: file.problems, ..env }
    }

    /// Returns a map of these variables. A later value replaces an earlier one.
    pub fn of(values: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { values: values.into_iter().collect(), ..Self::default() }
    }

    /// Returns the text of a variable without surrounding blanks; `None` if it is not set or blank.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.read.insert(name);
        let text = self.values.get(name)?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Returns a variable as `parse` reads it; `None` if it is not set or invalid. The problem does
    /// not quote the value, because it may be secret.
    pub(super) fn parse<T>(
        &mut self,
        name: &'static str,
        example: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let parsed = parse(&text);
        if parsed.is_none() {
            self.problem(name, format!("is invalid; e.g. {example}"));
        }
        parsed
    }

    /// Returns a number within `range`, or the default if the variable is not set or invalid.
    pub(super) fn number<T>(
        &mut self,
        name: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name) else { return default };
        match text.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let (low, high) = range.into_inner();
                self.problem(name, format!("must be {low} to {high}; e.g. {default}"));
                default
            }
        }
    }

    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        let flag = self.parse(name, "true or false", |text| match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        });
        flag.unwrap_or(default)
    }

    /// Reports every variable of an earlier release that is set, because it has no effect any more.
    pub(super) fn renamed(&mut self) {
        for (old, new) in RENAMED {
            if self.values.contains_key(old) {
                self.problem(old, format!("is no longer read; it is called {new} now"));
            }
        }
    }

    /// Reports what is missing of a group whose variables are set together or not at all. `optional`
    /// ones belong to the group, and it is complete without them.
    pub(super) fn group(&mut self, required: &[&'static str], optional: &[&'static str]) {
        let all = [required, optional].concat();
        let Some(set) = all.into_iter().find(|name| self.text(name).is_some()) else { return };
        for name in required {
            if self.text(name).is_none() {
                self.problem(name, format!("is required, because {set} is set"));
            }
        }
    }

    pub(super) fn missing(&mut self, name: &'static str, example: &str) {
        if !self.problems.iter().any(|problem| problem.name == name) {
            self.problem(name, format!("is required for this command; e.g. {example}"));
        }
    }

    pub(super) fn problem(&mut self, name: &'static str, problem: String) {
        self.problems.push(Problem { name, problem });
    }

    pub(super) fn problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }

    /// Returns the names of the variables that were read so far, sorted.
    pub fn names_read(&self) -> Vec<&'static str> {
        self.read.iter().copied().collect()
    }
}
