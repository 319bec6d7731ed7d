//! `grasp repos`: the list of repositories with their coverage.

use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::Args;
use comfy_table::{Cell, Color};
use sqlx::PgPool;
use tender_jobs::{
    grasp::view::{self, RepoRow, RepoSearch},
    queue,
};

use super::{repo::title, service};
use crate::{command::print, page::cut};

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
    #[arg(long, value_name = "MARK")]
    after: Option<String>,
    /// Repositories on a page.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

pub(super) async fn list(db: &PgPool, list: List, as_json: bool) -> anyhow::Result<()> {
    let service = match &list.service {
        Some(name) => Some(service::named(db, name).await?.id),
        None => None,
    };
    let after = list.after.as_deref().map(RepoSearch::parse_mark);
    if after == Some(None) {
        bail!("--after is not the mark of a page: copy the one that `tender grasp repos` prints");
    }
    let after = after.flatten();
    let search = RepoSearch {
        service,
        text: list.q.as_deref().and_then(crate::search::normal),
        is_missing: list.missing,
        after,
    };
    let limit = i64::from(list.limit);
    let (rows, next) = cut(view::repos(db, &search, limit + 1).await?, limit, RepoRow::mark);
    if as_json {
        return print::json(&rows);
    }
    if rows.is_empty() {
        return print::line("no repository matches");
    }
    print_table(&rows, queue::now(db).await?)?;
    next.map_or(Ok(()), |next| print::line(&format!("more: --after '{next}'")))
}

fn print_table(rows: &[RepoRow], now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut table =
        print::table(&["REPOSITORY", "RELAYS", "ROOTS", "COVERAGE", "BEHIND", "ADDRESS"]);
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
    print::hide_unless_wide(&mut table, &[5]);
    print::line(&table.trim_fmt())
}

fn coverage_cell(one: &RepoRow) -> Cell {
    let is_whole = one.confirmed == one.items();
    let cell = Cell::new(format!("{}/{}", one.confirmed, one.items()));
    cell.fg(if is_whole { Color::Green } else { Color::Yellow })
}
