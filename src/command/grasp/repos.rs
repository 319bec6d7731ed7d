//! `grasp repos`: the list of repositories with their coverage.

use chrono::{DateTime, Utc};
use clap::Args;
use sqlx::PgPool;
use tender_jobs::{
    grasp::view::{self, RepoRow, RepoSearch},
    queue,
};
use uuid::Uuid;

use super::{repo::title, service};
use crate::command::print::{self, Cell, Color, Column, Size, Table};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only repositories of which something is missing.
    #[arg(long)]
    missing: bool,
    /// Only repositories of this service: its address or id.
    #[arg(long, value_name = "URL")]
    service: Option<String>,
    /// Only repositories whose address or name contains this text.
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// Only repositories after this one: the mark at the end of the page before.
    #[arg(long, value_name = "MARK", value_parser = mark)]
    after: Option<(Uuid, String)>,
    #[command(flatten)]
    size: Size,
}

/// Parses the mark of a page.
fn mark(text: &str) -> Result<(Uuid, String), &'static str> {
    RepoSearch::parse_mark(text)
        .ok_or("not the mark of a page: copy the one that `tender grasp repos` prints")
}

pub(super) async fn list(db: &PgPool, list: List, as_json: bool) -> anyhow::Result<()> {
    let service = match &list.service {
        Some(name) => Some(service::named(db, name).await?.id),
        None => None,
    };
    let search = RepoSearch {
        service,
        text: list.q.as_deref().and_then(crate::search::normal),
        is_missing: list.missing,
        after: list.after,
    };
    let rows = view::repos(db, &search, list.size.read()).await?;
    let (rows, cut) = list.size.cut(rows, |last| format!("'{}'", last.mark()));
    if as_json {
        print::json(&rows)?;
    } else if rows.is_empty() {
        print::line("no repository matches")?;
    } else {
        print_table(&rows, queue::now(db).await?)?;
    }
    cut.say()
}

const COLUMNS: [Column; 6] = [
    Column::text("REPOSITORY", Column::ALWAYS, 16),
    Column::whole("RELAYS", 4),
    Column::whole("ROOTS", 4),
    Column::whole("COVERAGE", 8),
    Column::whole("BEHIND", 6),
    Column::whole("ADDRESS", 1),
];

fn print_table(rows: &[RepoRow], now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut table = Table::new(&COLUMNS);
    for one in rows {
        table.add_row(vec![
            Cell::new(title(one)),
            one.relays.into(),
            one.roots.into(),
            coverage_cell(one),
            one.oldest_missing_at
                .map_or_else(|| "-".to_owned(), |at| print::distance(at, now))
                .into(),
            crate::words::address(&one.address).into(),
        ]);
    }
    table.print()
}

fn coverage_cell(one: &RepoRow) -> Cell {
    let is_whole = one.confirmed == one.items();
    let cell = Cell::new(format!("{}/{}", one.confirmed, one.items()));
    cell.fg(if is_whole { Color::Green } else { Color::Yellow })
}
