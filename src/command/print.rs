//! Output of the commands: JSON, aligned columns, and relative times.

use std::io::Write;

use chrono::{DateTime, SubsecRound, Utc};
use comfy_table::{
    Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, TableStyle,
};
use serde::Serialize;
use tender_jobs::provision::relay::{Relay, SyncState};

pub(super) use crate::words::visible;
use crate::words::{brief, span};

/// The width from which a terminal shows every column.
const WIDE: u16 = 130;

/// Writes a line to standard output. A closed pipe (`| head`) is not an error.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Writes a line about the output to standard error, where it does not mix with the output.
pub(super) fn note(text: &str) -> anyhow::Result<()> {
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

/// Returns a table of aligned columns without borders. Colours and the width limit apply only on a
/// terminal.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Dynamic);
    let bold = |title: &&str| Cell::new(title).add_attribute(Attribute::Bold);
    table.set_header(header.iter().map(bold));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Whether a terminal has too few columns for every column of a table.
fn is_narrow(table: &Table) -> bool {
    table.width().is_some_and(|width| width < WIDE)
}

/// Prints rows as one table, or as two if the terminal is narrow: the second one has the columns from `at` on,
/// each row with its first cell again.
pub(super) fn split_unless_wide(
    header: &[&str],
    rows: &[Vec<Cell>],
    at: usize,
) -> anyhow::Result<()> {
    let is_split = is_narrow(&table(header));
    let columns: Vec<usize> = (0..header.len()).collect();
    let (first, second) = if is_split { columns.split_at(at) } else { (&columns[..], &[][..]) };
    line(&picked(header, rows, first))?;
    if second.is_empty() {
        return Ok(());
    }
    line(&format!("\n{}", picked(header, rows, &[&[0], second].concat())))
}

/// Returns a table of some columns.
fn picked(header: &[&str], rows: &[Vec<Cell>], columns: &[usize]) -> String {
    let header: Vec<&str> = columns.iter().map(|column| header[*column]).collect();
    let mut table = table(&header);
    for row in rows {
        table.add_row(columns.iter().map(|column| row[*column].clone()).collect::<Vec<_>>());
    }
    table.trim_fmt()
}

/// Hides columns that `show` and `--json` have too, if the terminal is narrow.
pub(super) fn hide_unless_wide(table: &mut Table, columns: &[usize]) {
    if is_narrow(table) {
        let wide = table.column_iter_mut().filter(|column| columns.contains(&column.index));
        wide.for_each(|column| {
            column.set_constraint(ColumnConstraint::Hidden);
        });
    }
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
        SyncState::Retrying => Color::Yellow,
        SyncState::GaveUp => Color::Red,
    };
    Cell::new(state.as_str().replace('_', " ")).fg(color)
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
    fn control_characters_are_visible() {
        assert_eq!(visible("a\u{1b}[2Jb\nü"), "a\\u{1b}[2Jb\\nü");
    }

    #[test]
    fn a_table_can_be_split_into_two_that_name_their_rows() {
        let header = ["URL", "STATE", "HOLDER"];
        let rows = [vec!["wss://a", "in step", "host:1"], vec!["wss://b", "dead", "-"]];
        let rows = rows.map(|row| row.into_iter().map(Cell::new).collect());
        let second = picked(&header, &rows, &[0, 2]);
        assert_eq!(second, "URL      HOLDER\nwss://a  host:1\nwss://b  -");
    }

    #[test]
    fn times_are_told_from_now() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("a time");
        let now = at("2026-01-01T00:00:00Z");
        assert_eq!(relative(at("2026-01-01T00:00:30Z"), now), "in 30 s");
        assert_eq!(relative(at("2025-12-31T23:58:00Z"), now), "2 min 0 s ago");
        assert_eq!(relative(now, now), "now");
    }
}
