//! `grasp repo`: one repository with its coverage.

use std::collections::BTreeSet;

use anyhow::bail;
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    grasp::view::{self, Moment, RepoRelay, RepoRow, RepoSearch, RootRow},
    queue,
};

use super::{missing::print_missing, relay::relay_color};
use crate::{
    command::print::{self, Cell, Column, Table},
    words::grasp as words,
};

/// The most repositories among which one is searched by its identifier.
const MOST_NAMED: i64 = 1000;
/// Rows of each list of `grasp repo`.
const LISTED: i64 = 20;
/// Moments that are read, to be told together.
const MOMENTS: i64 = 100;
/// The most lines that tell what happened.
const SHOWN: usize = 20;

/// Returns the name of a repository, or its identifier.
pub(super) fn title(one: &RepoRow) -> String {
    let name = one.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&one.identifier);
    let left = if one.left_at.is_some() { " (left)" } else { "" };
    format!("{}{left}", print::short(&crate::words::name(name), 40))
}

/// Finds a repository by its address, or by its identifier if only one repository has it; in each service that
/// has it.
async fn named(db: &PgPool, name: &str) -> anyhow::Result<Vec<RepoRow>> {
    for address in [name, &crate::words::typed(name)] {
        let found = view::repo(db, address).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let search = RepoSearch { text: Some(name.to_owned()), ..RepoSearch::default() };
    let mut found = view::repos(db, &search, MOST_NAMED).await?;
    found.retain(|one| one.identifier == name);
    let addresses: BTreeSet<_> = found.iter().map(|one| one.address.as_str()).collect();
    match addresses.len() {
        0 => bail!("there is no repository {name}; see `tender grasp repos`"),
        1 => Ok(found),
        _ => bail!(
            "several repositories are called {name}: give the address of one:\n{}",
            addresses.into_iter().map(crate::words::address).collect::<Vec<_>>().join("\n")
        ),
    }
}

pub(super) async fn show(db: &PgPool, address: &str, as_json: bool) -> anyhow::Result<()> {
    let found = named(db, address).await?;
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
            missing: view::missing_of(db, service, address, words::READ).await?,
            roots: view::roots(db, service, address, LISTED).await?,
            timeline: view::timeline(db, service, address, MOMENTS).await?,
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
        ("roots", words::roots(one.roots)),
        ("authors", one.authors.to_string()),
        (
            "coverage",
            format!(
                "{} delivered, {} in flight",
                words::delivered(one.confirmed, one.items()),
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

const RELAYS: [Column; 6] = [
    Column::text("RELAY", Column::ALWAYS, 24),
    Column::whole("STATE", 9),
    Column::whole("COVERAGE", 8),
    Column::whole("BEHIND", 5),
    Column::whole("NEXT TRY", 4),
    Column::text("ERROR", 6, 16),
];

fn print_relays(relays: &[RepoRelay], now: DateTime<Utc>) -> anyhow::Result<()> {
    if relays.is_empty() {
        return print::line("\nits announcement names no other relay");
    }
    print::line("")?;
    let mut table = Table::new(&RELAYS);
    for one in relays {
        let behind = one.oldest_missing_at.map(|at| print::distance(at, now));
        let next = one.next_attempt_at.map(|at| print::relative(at.max(now), now));
        table.add_row(vec![
            Cell::new(&one.url),
            Cell::new(words::name(one.state)).fg(relay_color(one.state)),
            format!("{}/{}", one.confirmed, one.confirmed + one.in_flight + one.missing).into(),
            behind.unwrap_or_else(|| "-".to_owned()).into(),
            next.unwrap_or_else(|| "-".to_owned()).into(),
            one.error.as_deref().unwrap_or("-").into(),
        ]);
    }
    table.print()
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
            "  {:<12} {} {} ({} of {})",
            words::root(one.kind),
            one.event_id,
            subject.unwrap_or_default(),
            one.confirmed,
            crate::words::counted(one.confirmed + one.missing, "relay"),
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
    for one in words::moments(timeline).iter().take(SHOWN) {
        print::line(&format!("  {:<18} {}", print::relative(one.first.at, now), one.words()))?;
    }
    Ok(())
}
