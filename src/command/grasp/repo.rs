//! `grasp repos`, `repo`: repositories with their coverage.

use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::Args;
use comfy_table::{Cell, Color};
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    grasp::view::{self, Moment, RepoRelay, RepoRow, RepoSearch, RootRow},
    queue,
};

use super::{missing::print_missing, relay::relay_color, service};
use crate::{command::print, words::grasp as words};

/// Rows of each list of `grasp repo`.
const LISTED: i64 = 20;

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
    let search = RepoSearch { service, text: list.q, is_missing: list.missing, after };
    let mut rows = view::repos(db, &search, i64::from(list.limit) + 1).await?;
    let has_more = rows.len() > usize::from(list.limit);
    rows.truncate(list.limit.into());
    if as_json {
        return print::json(&rows);
    }
    if rows.is_empty() {
        return print::line("no repository matches");
    }
    print_table(&rows, queue::now(db).await?)?;
    match rows.last().filter(|_| has_more) {
        Some(end) => print::line(&format!("more: --after '{}'", end.mark())),
        None => Ok(()),
    }
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

/// Returns the name of a repository, or its identifier.
fn title(one: &RepoRow) -> String {
    let name = one.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&one.identifier);
    let left = if one.left_at.is_some() { " (left)" } else { "" };
    format!("{}{left}", print::short(&crate::words::name(name), 40))
}

fn coverage_cell(one: &RepoRow) -> Cell {
    let is_whole = one.confirmed == one.items();
    let cell = Cell::new(format!("{}/{}", one.confirmed, one.items()));
    cell.fg(if is_whole { Color::Green } else { Color::Yellow })
}

pub(super) async fn show(db: &PgPool, address: &str, as_json: bool) -> anyhow::Result<()> {
    let mut found = view::repo(db, address).await?;
    if found.is_empty() {
        found = view::repo(db, &crate::words::typed(address)).await?;
    }
    if found.is_empty() {
        bail!("there is no repository {address}; see `tender grasp repos`");
    }
    let mut shown = Vec::with_capacity(found.len());
    for one in found {
        shown.push(Shown::read(db, one).await?);
    }
    if as_json {
        let all: Vec<_> = shown.iter().map(Shown::json).collect();
        return print::json(&all);
    }
    let now = queue::now(db).await?;
    shown.iter().try_for_each(|one| one.print(now))
}

/// A repository with everything that the command shows.
struct Shown {
    repo: RepoRow,
    relays: Vec<RepoRelay>,
    missing: Vec<view::MissingRow>,
    roots: Vec<RootRow>,
    timeline: Vec<Moment>,
}

impl Shown {
    async fn read(db: &PgPool, repo: RepoRow) -> Result<Self, sqlx::Error> {
        let (service, address) = (repo.service_id, repo.address.as_str());
        Ok(Self {
            relays: view::repo_relays(db, service, address).await?,
            missing: view::missing_of(db, service, address, LISTED).await?,
            roots: view::roots(db, service, address, LISTED).await?,
            timeline: view::timeline(db, service, address, LISTED).await?,
            repo,
        })
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "repository": self.repo, "relays": self.relays, "missing": self.missing,
            "roots": self.roots, "timeline": self.timeline,
        })
    }

    fn print(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        print::pairs(&facts(&self.repo, now))?;
        print_relays(&self.relays, now)?;
        print_missing(&self.missing, self.repo.missing + self.repo.in_flight, now)?;
        print_roots(&self.roots, self.repo.roots)?;
        print_timeline(&self.timeline, now)
    }
}

fn facts(one: &RepoRow, now: DateTime<Utc>) -> Vec<(&'static str, String)> {
    let announced = DateTime::from_timestamp(one.announced_at, 0);
    let cut = words::cut(one);
    let mut facts = vec![
        ("repository", title(one)),
        ("address", crate::words::address(&one.address)),
        ("service", one.service.clone()),
        ("announcement", one.announcement_id.clone()),
        ("announced", announced.map_or_else(|| "-".to_owned(), |at| print::relative(at, now))),
        ("relays", format!("{}{cut}", one.relays)),
        ("roots", format!("{} issues, patches and pull requests", one.roots)),
        ("authors", one.authors.to_string()),
        (
            "coverage",
            format!(
                "{} of {} items delivered, {} in flight",
                one.confirmed,
                one.items(),
                one.in_flight
            ),
        ),
    ];
    if let Some(at) = one.left_at {
        let left = format!(
            "{}: its announcement does not name the service any more",
            print::relative(at, now)
        );
        facts.push(("left", left));
    }
    facts
}

fn print_relays(relays: &[RepoRelay], now: DateTime<Utc>) -> anyhow::Result<()> {
    if relays.is_empty() {
        return print::line("\nits announcement names no other relay");
    }
    print::line("")?;
    let mut table = print::table(&["RELAY", "STATE", "COVERAGE", "BEHIND", "NEXT TRY", "ERROR"]);
    for one in relays {
        let behind = one.oldest_missing_at.map(|at| print::distance(at, now));
        let next = one.next_attempt_at.map(|at| print::relative(at.max(now), now));
        table.add_row(vec![
            Cell::new(&one.url),
            Cell::new(words::name(one.state)).fg(relay_color(one.state)),
            format!("{}/{}", one.confirmed, one.confirmed + one.in_flight + one.missing).into(),
            behind.unwrap_or_else(|| "-".to_owned()).into(),
            next.unwrap_or_else(|| "-".to_owned()).into(),
            print::short(&print::visible(one.error.as_deref().unwrap_or("-")), 80).into(),
        ]);
    }
    print::line(&table.trim_fmt())
}

fn print_roots(roots: &[RootRow], total: i64) -> anyhow::Result<()> {
    if roots.is_empty() {
        return Ok(());
    }
    print::line("\nissues, patches and pull requests, the newest first")?;
    for one in roots {
        let subject =
            one.subject.as_deref().map(|subject| print::short(&print::visible(subject), 60));
        print::line(&format!(
            "  {:<12} {} {} ({} of {} relays)",
            words::root(one.kind),
            one.event_id,
            subject.unwrap_or_default(),
            one.confirmed,
            one.confirmed + one.missing,
        ))?;
    }
    match total - i64::try_from(roots.len()).unwrap_or_default() {
        ..=0 => Ok(()),
        more => print::line(&format!("  and {more} more")),
    }
}

fn print_timeline(timeline: &[Moment], now: DateTime<Utc>) -> anyhow::Result<()> {
    if timeline.is_empty() {
        return Ok(());
    }
    print::line("\nlatest")?;
    for one in timeline {
        print::line(&format!("  {:<18} {}", print::relative(one.at, now), words::moment(one)))?;
    }
    Ok(())
}
