//! Tables with one line per row, which fit the terminal.
//!
//! A terminal that is too narrow gets fewer columns, those of the highest worth, and shorter texts: `…` marks
//! a cut. Ids are never cut. A pipe, a file and `--wide` get everything.

use comfy_table::{
    Attribute, Cell as Drawn, Color, ColumnConstraint, ContentArrangement, TableStyle, Width,
};

use super::{note, visible};
use crate::command::flags::Flags;

/// The spaces between two columns.
const SPACE: u16 = 2;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(in crate::command) struct Column {
    title: &'static str,
    /// A column with a lower worth is left out earlier; [`Column::ALWAYS`] never is.
    worth: u8,
    /// The fewest characters that a cut cell keeps; `None` if a cell is never cut.
    least: Option<u16>,
}

impl Column {
    /// The worth of a column that every terminal shows.
    pub(in crate::command) const ALWAYS: u8 = u8::MAX;

    /// A column whose cells are never cut.
    pub(in crate::command) const fn whole(title: &'static str, worth: u8) -> Self {
        Self { title, worth, least: None }
    }

    /// A column whose cells are cut to `least` characters, or to more if there is room.
    pub(in crate::command) const fn text(title: &'static str, worth: u8, least: u16) -> Self {
        Self { title, worth, least: Some(least) }
    }
}

/// A cell: its text, in which control characters are visible, and its colour.
#[derive(Debug, Clone)]
pub(in crate::command) struct Cell {
    text: String,
    color: Option<Color>,
}

impl Cell {
    #[expect(clippy::needless_pass_by_value, reason = "cells are written as `Cell::new(3)`")]
    pub(in crate::command) fn new(text: impl ToString) -> Self {
        Self { text: visible(&text.to_string()), color: None }
    }

    /// Returns the cell in a colour.
    pub(in crate::command) fn fg(self, color: Color) -> Self {
        Self { color: Some(color), ..self }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn drawn(&self) -> Drawn {
        let cell = Drawn::new(&self.text);
        self.color.map_or(cell.clone(), |color| cell.fg(color))
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

/// A table of aligned columns without borders.
pub(in crate::command) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(in crate::command) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, with a cell for each column.
    pub(in crate::command) fn add_row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Prints the table, and says on standard error which columns the terminal has no room for.
    pub(in crate::command) fn print(&self) -> anyhow::Result<()> {
        // comfy-table finds out whether there is a terminal, and how wide it is.
        let room = comfy_table::Table::new().width().filter(|_| !Flags::get().wide);
        let (text, hidden) = self.drawn(room);
        super::line(&text)?;
        if hidden.is_empty() {
            return Ok(());
        }
        note(&format!("without {}; --wide shows all", hidden.join(", ")))
    }

    /// Returns the text of the table in `room` characters per line, and the titles of the columns left out.
    fn drawn(&self, room: Option<u16>) -> (String, Vec<&'static str>) {
        let natural = self.natural();
        let widths = widths(&self.columns, &natural, room);
        let kept: Vec<usize> = (0..widths.len()).filter(|at| widths[*at].is_some()).collect();
        let mut table = comfy_table::Table::new();
        table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
        let bold = |at: &usize| Drawn::new(self.columns[*at].title).add_attribute(Attribute::Bold);
        table.set_header(kept.iter().map(bold));
        for row in &self.rows {
            let cells = kept.iter().map(|at| row[*at].drawn()).collect::<Vec<_>>();
            table.add_row(comfy_table::Row::from(cells));
        }
        for row in table.row_iter_mut() {
            row.max_height(1);
        }
        let last = kept.last().copied();
        for (column, at) in table.column_iter_mut().zip(&kept) {
            let space = if Some(*at) == last { 0 } else { SPACE };
            column.set_padding((0, space));
            let width = widths[*at].filter(|width| *width < natural[*at]);
            width.map(|width| {
                column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width + space)))
            });
        }
        let is_hidden =
            |(at, column): &(usize, &Column)| widths[*at].is_none() && !column.title.is_empty();
        let hidden = self.columns.iter().enumerate().filter(is_hidden);
        (table.trim_fmt(), hidden.map(|(_, column)| column.title).collect())
    }

    /// Returns the width of the widest cell of each column.
    fn natural(&self) -> Vec<u16> {
        let mut table = comfy_table::Table::new();
        table.set_header(self.columns.iter().map(|column| column.title));
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| &cell.text).collect::<Vec<_>>());
        }
        let is_empty = |at: usize| {
            self.columns[at].title.is_empty() && self.rows.iter().all(|row| row[at].text.is_empty())
        };
        let widths = table.column_max_content_widths().into_iter().enumerate();
        widths.map(|(at, width)| if is_empty(at) { 0 } else { width }).collect()
    }
}

/// Returns the width of each column in `room` characters per line; `None` for a column that is left out. A
/// column that is empty in every row and has no title is left out, too.
fn widths(columns: &[Column], natural: &[u16], room: Option<u16>) -> Vec<Option<u16>> {
    let mut widths: Vec<Option<u16>> =
        natural.iter().map(|width| (*width > 0).then_some(*width)).collect();
    let Some(room) = room else { return widths };
    let fewest = |at: usize| columns[at].least.map_or(natural[at], |least| least.min(natural[at]));
    let needed = |widths: &[Option<u16>]| -> u16 {
        let kept: Vec<u16> = widths.iter().flatten().copied().collect();
        let spaces = SPACE * u16::try_from(kept.len().saturating_sub(1)).unwrap_or(u16::MAX);
        kept.iter().fold(spaces, |sum, width| sum.saturating_add(*width))
    };
    if needed(&widths) <= room {
        return widths;
    }
    for (at, width) in widths.iter_mut().enumerate() {
        *width = width.map(|_| fewest(at));
    }
    while needed(&widths) > room {
        let kept = (0..widths.len()).filter(|at| widths[*at].is_some());
        let droppable = kept.filter(|at| columns[*at].worth < Column::ALWAYS);
        let Some(least) = droppable.min_by_key(|at| columns[*at].worth) else { break };
        widths[least] = None;
    }
    // What is left goes to the cut columns, to the shortest first.
    for _ in needed(&widths)..room {
        let is_cut = |at: &usize| widths[*at].is_some_and(|width| width < natural[*at]);
        let Some(shortest) = (0..widths.len()).filter(is_cut).min_by_key(|at| widths[*at]) else {
            break;
        };
        widths[shortest] = widths[shortest].map(|width| width + 1);
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::text("HOST", Column::ALWAYS, 8),
        Column::whole("STATE", 9),
        Column::text("ERROR", 5, 10),
        Column::whole("ID", 1),
    ];

    fn drawn(room: Option<u16>) -> (String, Vec<&'static str>) {
        let mut table = Table::new(&COLUMNS);
        let id = "0b6d9f0e-5b1c-4c7e-9b43-1c1f6b8f2a10";
        let error = "zooid answered 503 and said nothing more";
        table.add_row(["alpha.spaces.example.com", "gave up", error, id].map(Cell::from).to_vec());
        table.add_row(["b.example.com", "synced", "", id].map(Cell::from).to_vec());
        table.drawn(room)
    }

    #[test]
    fn everything_is_shown_where_there_is_room() {
        let (text, hidden) = drawn(None);
        assert!(hidden.is_empty() && !text.contains('…'), "{text}");
        assert!(text.contains("said nothing more  0b6d9f0e-5b1c"), "{text}");
    }

    #[test]
    fn columns_of_the_least_worth_go_first_and_texts_are_cut() {
        let (text, hidden) = drawn(Some(80));
        assert_eq!(hidden, Vec::<&str>::new(), "{text}");
        assert!(text.contains("gave up") && text.contains("…"), "{text}");
        assert!(text.contains("0b6d9f0e-5b1c-4c7e-9b43-1c1f6b8f2a10"), "{text}");
        let (text, hidden) = drawn(Some(60));
        assert_eq!(hidden, ["ID"], "{text}");
        let (text, hidden) = drawn(Some(20));
        assert_eq!(hidden, ["ERROR", "ID"], "{text}");
        assert!(text.lines().skip(1).any(|line| line.starts_with("alpha.spac…")), "{text}");
    }

    #[test]
    fn every_line_fits_every_width() {
        for room in 17..200 {
            let (text, _) = drawn(Some(room));
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap_or_default();
            assert!(longest <= room.into(), "{room}: {text}");
            assert_eq!(text.lines().count(), 3, "{room}: {text}");
        }
    }

    #[test]
    fn an_empty_column_without_a_title_takes_no_room() {
        let mut table =
            Table::new(&[Column::whole("A", 9), Column::whole("", 9), Column::whole("B", 9)]);
        table.add_row(["1", "", "2"].map(Cell::from).to_vec());
        assert_eq!(table.drawn(Some(80)).0, "A  B\n1  2");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(Cell::new("a\u{1b}[2J\nb").text, "a\\u{1b}[2J\\nb");
    }
}
