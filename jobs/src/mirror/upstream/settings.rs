//! Settings of the mirror. An upstream overrides the deployment's settings, and the deployment
//! overrides the defaults.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive, time::Duration};

use serde_json::{Map, Value, json};

use crate::mirror::{
    event::Limits,
    filter::{self, Filter},
};

/// The settings by which the mirror works on an upstream. The name of each number contains its
/// unit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "`NUMBERS` describes each field")]
pub struct Settings {
    pub batch_size: u64,
    pub max_concurrent_connections: u64,
    pub max_live_connections: u64,
    pub reconnect_delay_seconds: u64,
    pub max_reconnect_attempts: u64,
    pub backfill_since_hours: u64,
    pub negentropy_frame_size: u64,
    pub negentropy_chunk_hours: u64,
    pub negentropy_timeout_seconds: u64,
    pub polling_chunk_hours: u64,
    pub chunk_max_hours: u64,
    pub upload_batch_size: u64,
    pub upload_delay_ms: u64,
    pub upload_adaptive: u64,
    pub polling_window_minutes: u64,
    pub polling_timeout_seconds: u64,
    pub stale_threshold_minutes: u64,
    pub error_retry_after_minutes: u64,
    pub resume_overlap_seconds: u64,
    pub checkpoint_interval: u64,
    pub poll_page_limit: u64,
    pub ingest_max_event_bytes: u64,
    pub ingest_max_tags: u64,
    /// Only these kinds are downloaded; empty means all.
    pub event_kinds: Vec<u16>,
    /// Only matching events are mirrored, in both directions.
    pub filter: Filter,
}

/// A setting whose value is a number.
pub struct Number {
    /// The name in a configuration.
    pub name: &'static str,
    /// The group under which it is shown.
    pub group: &'static str,
    /// The value if it is not set.
    pub default: u64,
    /// The allowed values.
    pub range: RangeInclusive<u64>,
    /// The meaning, for people.
    pub about: &'static str,
    /// Whether only the deployment may set it, and not an upstream.
    pub is_global: bool,
    field: fn(&mut Settings) -> &mut u64,
}

macro_rules! numbers {
    ($($group:literal { $($name:ident = $default:literal in $range:expr, $global:literal, $about:literal;)* })*) => {
        /// Every setting whose value is a number, in the order in which they are shown.
        pub const NUMBERS: &[Number] = &[$($(Number {
            name: stringify!($name), group: $group, default: $default, range: $range,
            about: $about, is_global: $global, field: |settings| &mut settings.$name,
        },)*)*];

        impl Default for Settings {
            fn default() -> Self {
                Self { $($($name: $default,)*)* event_kinds: Vec::new(), filter: Filter::default() }
            }
        }
    };
}

numbers! {
    "connection" {
        max_concurrent_connections = 10 in 1..=1000, true, "open connections for jobs per process; unused ones give way, and further jobs wait";
        max_live_connections = 256 in 1..=10_000, true, "open connections for live subscriptions per process";
        reconnect_delay_seconds = 5 in 1..=3600, false, "delay before a live subscription reconnects; the n-th attempt waits n times as long";
        max_reconnect_attempts = 10 in 0..=100, false, "attempts of a live subscription to reconnect before it pauses for five minutes";
    }
    "polling" {
        poll_page_limit = 500 in 1..=5000, false, "events per page; lowered to the limit that the relay advertises";
        polling_timeout_seconds = 30 in 1..=60, false, "longest wait for the next message of a page";
        polling_window_minutes = 15 in 1..=1440, false, "realtime: shortest window before now; without a cursor, the whole window";
        polling_chunk_hours = 6 in 1..=8760, false, "length of a backfill's first window by polling; later ones grow";
        resume_overlap_seconds = 300 in 0..=86_400, false, "realtime: how far the next window overlaps the previous one";
        checkpoint_interval = 100 in 1..=10_000, false, "events received between two writes of progress";
    }
    "negentropy" {
        negentropy_frame_size = 60_000 in 0..=500_000, false, "largest frame that we send, in bytes; 0 means no limit";
        negentropy_chunk_hours = 2 in 1..=8760, false, "length of a backfill's first window by negentropy; later ones grow while they are easy";
        negentropy_timeout_seconds = 30 in 1..=60, false, "longest wait for the first answer to a reconciliation; an upstream that does not answer is polled for a day";
        batch_size = 100 in 1..=500, false, "ids per request for missing events";
    }
    "backfill" {
        backfill_since_hours = 43_800 in 1..=175_200, false, "age of the oldest events that a backfill covers";
        chunk_max_hours = 168 in 1..=8760, false, "longest window";
    }
    "upload" {
        upload_batch_size = 50 in 1..=1000, false, "events per batch of uploads, at first";
        upload_delay_ms = 100 in 0..=60_000, false, "pause between two batches, at first";
        upload_adaptive = 1 in 0..=1, false, "1: while the upstream answers fast, the pause ends and the batches grow, up to 500 events and 1 MiB; a limit, slow answers or a lost connection end that; 0: both stay";
    }
    "failures" {
        stale_threshold_minutes = 10 in 2..=1440, false, "a lane without a heartbeat for this long is stale";
        error_retry_after_minutes = 30 in 1..=10_080, false, "delay of the retry after a failure; each further failure doubles it, up to a day";
    }
    "ingest" {
        ingest_max_event_bytes = 262_144 in 1024..=4_194_304, false, "largest event, as JSON";
        ingest_max_tags = 5000 in 1..=100_000, false, "most tags of an event";
    }
}

/// The invalid parts of a configuration; each message names its setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SettingsError(pub Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl Settings {
    /// Returns the deployment's settings: the defaults, overridden by `config`.
    ///
    /// # Errors
    /// Every unknown setting and every value out of range.
    pub fn of_deployment(config: &Value) -> Result<Self, SettingsError> {
        Self::default().overlay(config, true)
    }

    /// Returns these settings, overridden by an upstream's `config`.
    ///
    /// # Errors
    /// Every setting that is unknown or that an upstream may not set, and every value out of range.
    pub fn overlaid(&self, config: &Value) -> Result<Self, SettingsError> {
        self.clone().overlay(config, false)
    }

    /// Returns the settings of a stored configuration. Names and values that this release does not know
    /// are ignored: another release stored them.
    pub(in crate::mirror) fn of_stored(config: &Map<String, Value>) -> Self {
        let mut settings = Self::default();
        for (name, value) in config {
            // A refused value leaves the setting as it was.
            let _ignored: Result<(), String> = settings.set(name, value, true);
        }
        settings
    }

    /// Returns whether a setting has this name.
    pub(in crate::mirror) fn is_name(name: &str) -> bool {
        matches!(name, "filter" | "event_kinds") || NUMBERS.iter().any(|one| one.name == name)
    }

    fn overlay(mut self, config: &Value, is_deployment: bool) -> Result<Self, SettingsError> {
        let Some(config) = config.as_object() else {
            return Err(SettingsError(vec!["must be an object, such as {}".to_owned()]));
        };
        let mut problems = Vec::new();
        for (key, value) in config {
            if let Err(problem) = self.set(key, value, is_deployment) {
                problems.push(problem);
            }
        }
        if problems.is_empty() { Ok(self) } else { Err(SettingsError(problems)) }
    }

    fn set(&mut self, key: &str, value: &Value, is_deployment: bool) -> Result<(), String> {
        match key {
            "filter" => {
                self.filter =
                    Filter::parse(value).map_err(|problem| format!("filter {problem}"))?;
            }
            "event_kinds" => {
                let kinds = filter::kinds(value).map_err(
                    |_| "event_kinds must be a list of numbers 0 to 65535, such as [1, 30023]",
                )?;
                self.event_kinds = kinds.into_iter().collect();
            }
            _ => {
                let number = NUMBERS.iter().find(|number| number.name == key);
                let number = number.ok_or_else(|| {
                    format!("{key} is an unknown setting; see `tender mirror config`")
                })?;
                if number.is_global && !is_deployment {
                    return Err(format!(
                        "{key} is a setting of the deployment, not of an upstream: \
                         `tender mirror config set {key}={value}`"
                    ));
                }
                *(number.field)(self) = number.read(value)?;
            }
        }
        Ok(())
    }

    /// Returns the filter of downloads: `filter`, restricted to the kinds in `event_kinds`. If both
    /// have kinds but none in common, `filter` applies alone, because an empty list of kinds would
    /// match all kinds.
    pub fn download_filter(&self) -> Filter {
        let mut filter = self.filter.clone();
        let is_allowed = |kind: &u16| filter.kinds.is_empty() || filter.kinds.contains(kind);
        let kinds: BTreeSet<u16> = self.event_kinds.iter().copied().filter(is_allowed).collect();
        if !kinds.is_empty() {
            filter.kinds = kinds;
        }
        filter
    }

    /// Returns the limits of a received event.
    pub fn limits(&self) -> Limits {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Limits { bytes: size(self.ingest_max_event_bytes), tags: size(self.ingest_max_tags) }
    }

    /// Returns `polling_timeout_seconds` as a duration.
    pub fn polling_timeout(&self) -> Duration {
        Duration::from_secs(self.polling_timeout_seconds)
    }

    /// Returns `negentropy_timeout_seconds` as a duration.
    pub fn negentropy_timeout(&self) -> Duration {
        Duration::from_secs(self.negentropy_timeout_seconds)
    }

    /// Returns the value of a number.
    pub fn get(&self, number: &Number) -> u64 {
        *(number.field)(&mut self.clone())
    }

    /// Returns the settings as a configuration that sets every name.
    pub fn to_json(&self) -> Value {
        let numbers =
            NUMBERS.iter().map(|number| (number.name.to_owned(), json!(self.get(number))));
        let mut all: Map<String, Value> = numbers.collect();
        all.insert("event_kinds".to_owned(), json!(self.event_kinds));
        all.insert("filter".to_owned(), Value::Object(self.filter.to_json()));
        Value::Object(all)
    }
}

impl Number {
    /// Parses a value. A string of digits is accepted too.
    fn read(&self, value: &Value) -> Result<u64, String> {
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = match value {
            Value::String(text) if digits(text) => text.parse().ok(),
            value => value.as_u64(),
        };
        let is_allowed = |number: &u64| {
            self.range.contains(number)
                // Negentropy requires a limit of at least 4096 bytes; 0 means no limit.
                && (self.name != "negentropy_frame_size" || *number == 0 || *number >= 4096)
        };
        number.filter(is_allowed).ok_or_else(|| {
            let (from, to) = (self.range.start(), self.range.end());
            match self.name {
                "negentropy_frame_size" => format!("{} must be 0 or 4096 to {to}", self.name),
                name => format!("{name} must be a whole number, {from} to {to}"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_in_its_range_and_reads_back() {
        let all = Settings::default().to_json();
        assert_eq!(Settings::of_deployment(&all), Ok(Settings::default()));
        for number in NUMBERS {
            assert!(number.range.contains(&number.default), "{}", number.name);
        }
    }

    #[test]
    fn an_upstream_sets_its_own_but_not_what_is_global() {
        let deployment =
            Settings::of_deployment(&json!({"batch_size": 7, "max_concurrent_connections": 3}));
        let deployment = deployment.expect("valid");
        let own = deployment.overlaid(&json!({"poll_page_limit": "40", "event_kinds": [1, 1]}));
        let own = own.expect("valid");
        assert_eq!((own.batch_size, own.poll_page_limit, own.event_kinds), (7, 40, vec![1]));
        let refused = deployment.overlaid(&json!({"max_concurrent_connections": 3}));
        let refused = refused.expect_err("refused").to_string();
        assert!(refused.contains("`tender mirror config set max_concurrent_connections=3`"));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let config = json!({
            "batch_size": 501, "poll_page_limit": "4x", "nonsense": 1, "event_kinds": [-1],
            "filter": {"since": 1}, "negentropy_frame_size": 100, "upload_delay_ms": 1.5,
        });
        let problems = Settings::default().overlaid(&config).expect_err("refused").0;
        assert_eq!(problems.len(), 7, "{problems:?}");
        assert!(Settings::default().overlaid(&json!([])).is_err());
    }

    #[test]
    fn kinds_narrow_the_filter() {
        let config = json!({"event_kinds": [1, 7], "filter": {"kinds": [1, 3]}});
        let settings = Settings::default().overlaid(&config).expect("valid");
        assert_eq!(settings.download_filter().kinds.into_iter().collect::<Vec<_>>(), [1]);
        assert_eq!(settings.filter.kinds.len(), 2);
    }
}
