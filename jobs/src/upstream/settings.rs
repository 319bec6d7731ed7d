//! Settings of event sync: the built-in default, then the deployment's, then the upstream's own.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    event::Limits,
    filter::{self, Filter},
};

/// What a sync goes by. Every number has its unit in its name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described in `NUMBERS`, for people too")]
pub struct Settings {
    pub batch_size: u64,
    pub max_concurrent_connections: u64,
    pub reconnect_delay_seconds: u64,
    pub max_reconnect_attempts: u64,
    pub backfill_since_hours: u64,
    pub negentropy_frame_size: u64,
    pub negentropy_chunk_hours: u64,
    pub polling_chunk_hours: u64,
    pub chunk_max_hours: u64,
    pub upload_batch_size: u64,
    pub upload_delay_ms: u64,
    pub polling_window_minutes: u64,
    pub polling_timeout_seconds: u64,
    pub stale_threshold_minutes: u64,
    pub error_retry_after_minutes: u64,
    pub resume_overlap_seconds: u64,
    pub checkpoint_interval: u64,
    pub poll_page_limit: u64,
    pub ingest_max_event_bytes: u64,
    pub ingest_max_tags: u64,
    /// Only these kinds are downloaded; empty: all.
    pub event_kinds: Vec<u16>,
    /// What is synced at all, both ways.
    pub filter: Filter,
}

/// A number that can be set.
pub struct Number {
    /// Its name in a configuration.
    pub name: &'static str,
    /// The group it is shown in.
    pub group: &'static str,
    /// What it is without being set.
    pub default: u64,
    /// What it may be.
    pub range: RangeInclusive<u64>,
    /// What it does, for people.
    pub about: &'static str,
    /// Cannot be set for one upstream.
    pub is_global: bool,
    field: fn(&mut Settings) -> &mut u64,
}

macro_rules! numbers {
    ($($group:literal { $($name:ident = $default:literal in $range:expr, $global:literal, $about:literal;)* })*) => {
        /// Every number, as it is shown.
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
        max_concurrent_connections = 10 in 1..=1000, true, "open connections of one process; further jobs wait";
        reconnect_delay_seconds = 5 in 1..=3600, false, "a live subscription's n-th attempt to connect waits n times this";
        max_reconnect_attempts = 10 in 0..=100, false, "then it rests for five minutes";
    }
    "polling" {
        poll_page_limit = 500 in 1..=5000, false, "events asked for at once; lowered to what the relay advertises";
        polling_timeout_seconds = 30 in 1..=60, false, "longest silence while waiting for a page";
        polling_window_minutes = 15 in 1..=1440, false, "realtime: how far back it looks without a cursor, and at least with one";
        polling_chunk_hours = 6 in 1..=8760, false, "first window of a backfill by polling";
        resume_overlap_seconds = 300 in 0..=86_400, false, "how far behind its cursor realtime starts";
        checkpoint_interval = 100 in 1..=10_000, false, "received events between two writes of progress";
    }
    "negentropy" {
        negentropy_frame_size = 60_000 in 0..=500_000, false, "largest frame that we send, in bytes; 0: no limit";
        negentropy_chunk_hours = 2 in 1..=8760, false, "first window of a backfill by negentropy";
        batch_size = 100 in 1..=500, false, "ids asked for at once";
    }
    "backfill" {
        backfill_since_hours = 43_800 in 1..=175_200, false, "how far back history is wanted";
        chunk_max_hours = 168 in 1..=8760, false, "the longest that a window grows";
    }
    "upload" {
        upload_batch_size = 50 in 1..=1000, false, "events sent at once";
        upload_delay_ms = 100 in 0..=60_000, false, "pause after each of these";
    }
    "failures" {
        stale_threshold_minutes = 10 in 2..=1440, false, "without a sign of life for this long a sync is stuck";
        error_retry_after_minutes = 30 in 1..=10_080, false, "rest after a failure; doubled by each further one, up to a day";
    }
    "ingest" {
        ingest_max_event_bytes = 262_144 in 1024..=4_194_304, false, "longest event";
        ingest_max_tags = 5000 in 1..=100_000, false, "most tags of an event";
    }
}

/// What of a configuration cannot be used; each sentence names its setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SettingsError(pub Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl Settings {
    /// The deployment's settings: the defaults, and what `config` sets differently.
    ///
    /// # Errors
    /// Everything in it that is no setting or out of range.
    pub fn of_deployment(config: &Value) -> Result<Self, SettingsError> {
        Self::default().overlay(config, true)
    }

    /// These, with what an upstream's `config` sets differently.
    ///
    /// # Errors
    /// Everything in it that is no setting of an upstream or out of range.
    pub fn overlaid(&self, config: &Value) -> Result<Self, SettingsError> {
        self.clone().overlay(config, false)
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
                let number = number.filter(|number| is_deployment || !number.is_global);
                let number = number
                    .ok_or_else(|| format!("{key} is no setting; see `tender sync config`"))?;
                *(number.field)(self) = number.read(value)?;
            }
        }
        Ok(())
    }

    /// What is downloaded: the filter, and of its kinds only those that are wanted. Where the two have
    /// none in common, the filter stands: no kinds at all would mean all.
    pub fn download_filter(&self) -> Filter {
        let mut filter = self.filter.clone();
        let is_allowed = |kind: &u16| filter.kinds.is_empty() || filter.kinds.contains(kind);
        let kinds: BTreeSet<u16> = self.event_kinds.iter().copied().filter(is_allowed).collect();
        if !kinds.is_empty() {
            filter.kinds = kinds;
        }
        filter
    }

    /// The limits of what is taken in.
    pub fn limits(&self) -> Limits {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Limits { bytes: size(self.ingest_max_event_bytes), tags: size(self.ingest_max_tags) }
    }

    /// See `polling_timeout_seconds`.
    pub fn polling_timeout(&self) -> Duration {
        Duration::from_secs(self.polling_timeout_seconds)
    }

    /// A number by its name, for people.
    pub fn get(&self, number: &Number) -> u64 {
        *(number.field)(&mut self.clone())
    }

    /// As a configuration that sets everything.
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
    /// Reads a value; strings of digits are taken too.
    fn read(&self, value: &Value) -> Result<u64, String> {
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = match value {
            Value::String(text) if digits(text) => text.parse().ok(),
            value => value.as_u64(),
        };
        let is_allowed = |number: &u64| {
            self.range.contains(number)
                // A frame holds at least this much, or is not limited at all.
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
        assert!(refused.expect_err("refused").to_string().contains("no setting"));
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
