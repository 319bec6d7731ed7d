//! Figures of this process and its machine, from `/proc`. Where there is none, they are `null`.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::PgPool;

/// How long the figures are answered without reading them again.
const FRESH: Duration = Duration::from_secs(5);
/// The unit of CPU time in `/proc`, per second. Linux has this value on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads the figures, and remembers the CPU time for the next reading.
#[derive(Debug)]
pub(super) struct Meter {
    begun: Instant,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    at: Instant,
    ticks: Option<u64>,
    value: Option<Value>,
}

impl Default for Meter {
    fn default() -> Self {
        let now = Instant::now();
        Self { begun: now, last: Mutex::new(Last { at: now, ticks: ticks(), value: None }) }
    }
}

impl Meter {
    pub(super) fn read(&self, db: &PgPool) -> Value {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &last.value
            && last.at.elapsed() < FRESH
        {
            return value.clone();
        }
        let (ticks, elapsed) = (ticks(), last.at.elapsed().as_secs_f64());
        let percent = percent(last.ticks, ticks, elapsed);
        let value = self.figures(db, percent);
        *last = Last { at: Instant::now(), ticks, value: Some(value.clone()) };
        value
    }

    fn figures(&self, db: &PgPool, cpu_percent: Option<f64>) -> Value {
        let used = usize::try_from(db.size()).unwrap_or(usize::MAX).saturating_sub(db.num_idle());
        json!({
            "memory": { "rss_bytes": kib("/proc/self/status", "VmRSS:"),
                        "total_bytes": kib("/proc/meminfo", "MemTotal:") },
            "cpu": { "percent": cpu_percent, "load_average": load() },
            "process": { "threads": number("/proc/self/status", "Threads:"),
                         "uptime_seconds": self.begun.elapsed().as_secs(),
                         "version": env!("CARGO_PKG_VERSION") },
            "database": { "pool_size": db.options().get_max_connections(), "pool_used": used },
        })
    }
}

fn percent(before: Option<u64>, now: Option<u64>, seconds: f64) -> Option<f64> {
    let ticks = u32::try_from(now?.saturating_sub(before?)).ok()?;
    let percent = 100.0 * f64::from(ticks) / TICKS_PER_SECOND / seconds.max(0.01);
    Some((percent * 10.0).round() / 10.0)
}

/// Returns the CPU time of this process.
fn ticks() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name, may contain blanks.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn number(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kib(file: &str, name: &str) -> Option<u64> {
    number(file, name).map(|kib| kib * 1024)
}

fn load() -> Option<Vec<f64>> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().take(3).map(|number| number.parse().ok()).collect()
}
