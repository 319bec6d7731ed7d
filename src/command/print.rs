//! Output of the commands: JSON, tables, pages of lists, and relative times.

mod page;
mod prose;
mod table;

use std::io::Write;

use chrono::{DateTime, SubsecRound, Utc};
use serde::Serialize;
use tender_jobs::provision::relay::{Relay, SyncState};

pub(super) use comfy_table::Color;
pub(super) use page::Size;
pub(super) use prose::prose;
pub(super) use table::{Cell, Column, Table};

use super::flags::Flags;
pub(super) use crate::words::visible;
use crate::words::{brief, span};

/// Writes a line to standard output. A closed pipe (`| head`) is not an error.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Writes a line about the output to standard error, where it does not mix with the output, unless `--quiet`
/// was given.
pub(super) fn note(text: &str) -> anyhow::Result<()> {
    if Flags::get().quiet { Ok(()) } else { ask(text) }
}

/// Writes a question to standard error.
pub(super) fn ask(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stderr().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

pub(super) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints the result of a command that has no other output.
pub(super) fn done(as_json: bool, what: &str) -> anyhow::Result<()> {
    if as_json { json(&serde_json::json!({ "done": what })) } else { line(what) }
}

/// Prints one name with its value per line. The values are aligned.
pub(super) fn pairs(pairs: &[(&str, String)]) -> anyhow::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    pairs.iter().try_for_each(|(name, value)| line(format!("{name:<width$}  {value}").trim_end()))
}

/// Returns a cell with a relay's sync state in its colour.
pub(super) fn sync_cell(relay: &Relay) -> Cell {
    let state = relay.sync_state();
    let color = match state {
        SyncState::Synced => Color::Green,
        SyncState::Pending => Color::Cyan,
        SyncState::Failing => Color::Yellow,
        SyncState::GaveUp => Color::Red,
    };
    Cell::new(state.word()).fg(color)
}

/// Formats the number of failed attempts, such as `2 of 7`; `-` if no attempt failed.
pub(super) fn attempts(relay: &Relay, max_attempts: u32) -> String {
    match relay.attempts {
        0 => "-".to_owned(),
        spent => format!("{spent} of {max_attempts}"),
    }
}

/// Formats a time relative to `now`, such as `in 4 min 12 s` or `3 h 5 min ago`.
pub(super) fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (at.round_subsecs(0) - now.round_subsecs(0)).num_seconds();
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {}", span(seconds)),
        _ => format!("{} ago", span(-seconds)),
    }
}

/// Formats the distance of a time from `now` in its largest unit, such as `5 min`.
pub(super) fn distance(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    brief((at - now).num_seconds().abs())
}

/// Cuts `text` to at most `limit` characters; `…` marks the cut.
pub(super) fn short(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("a time");
        let now = at("2026-01-01T00:00:00Z");
        assert_eq!(relative(at("2026-01-01T00:00:30Z"), now), "in 30 s");
        assert_eq!(relative(at("2025-12-31T23:58:00Z"), now), "2 min 0 s ago");
        assert_eq!(relative(now, now), "now");
    }
}
