//! Sentences beside marks, wrapped between words.

use super::{Cell, line};
use crate::command::flags::Flags;

/// The narrowest column of sentences.
const NARROWEST: usize = 20;

/// Prints rows whose last cell is a sentence. A terminal that is too narrow gets it wrapped between words; a
/// word that is longer than the line is not broken, so that it can be copied. A pipe, a file and `--wide` get
/// one line per row.
pub(in crate::command) fn prose(rows: &[Vec<Cell>]) -> anyhow::Result<()> {
    // comfy-table finds out whether there is a terminal, and how wide it is.
    let room = comfy_table::Table::new().width().filter(|_| !Flags::get().wide);
    rows.iter().try_for_each(|row| line(&drawn(row, &widths(rows), room.map(usize::from))))
}

/// Returns the widths of the marks.
fn widths(rows: &[Vec<Cell>]) -> Vec<usize> {
    let marks = rows.first().map_or(0, |row| row.len().saturating_sub(1));
    let width = |at: usize| rows.iter().map(|row| row[at].text().chars().count()).max();
    (0..marks).map(|at| width(at).unwrap_or_default()).collect()
}

fn drawn(row: &[Cell], widths: &[usize], room: Option<usize>) -> String {
    let marks = row.iter().zip(widths).map(|(cell, width)| format!("{:<width$}  ", cell.text()));
    let marks = marks.collect::<String>();
    let indent = marks.chars().count();
    let room = room.map(|room| room.saturating_sub(indent).max(NARROWEST));
    let text = row.last().map(Cell::text).unwrap_or_default();
    let lines = room.map_or_else(|| vec![text.to_owned()], |room| wrapped(text, room));
    format!("{marks}{}", lines.join(&format!("\n{}", " ".repeat(indent))))
}

/// Returns lines of at most `room` characters, or of one longer word.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let length = lines[last].chars().count();
        if length == 0 {
            lines[last].push_str(word);
        } else if length + 1 + word.chars().count() <= room {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_wrapped_between_words_beside_their_marks() {
        let row =
            ["warn", "queue", "the queue of relays is paused by wss://a-long-word.example.com now"];
        let row = row.map(Cell::from).to_vec();
        let widths = widths(std::slice::from_ref(&row));
        let expected = "warn  queue  the queue of relays\n             is paused by\n             \
                        wss://a-long-word.example.com\n             now";
        assert_eq!(drawn(&row, &widths, Some(33)), expected);
        assert_eq!(drawn(&row, &widths, None).lines().count(), 1);
    }
}
