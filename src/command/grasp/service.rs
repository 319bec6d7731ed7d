//! `grasp list`, `show`: services.

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    grasp::view::{self, Decision, ServiceRow},
    queue,
};

use crate::{
    command::print::{self, Cell, Color, Column, Table},
    words::grasp as words,
};

/// Finds a service by its address or id.
pub(super) async fn named(db: &PgPool, name: &str) -> anyhow::Result<ServiceRow> {
    let found = view::service(db, name).await?;
    found.with_context(|| format!("there is no service {name}; see `tender grasp list`"))
}

const COLUMNS: [Column; 6] = [
    Column::text("URL", Column::ALWAYS, 24),
    Column::whole("", 9),
    Column::whole("REPOSITORIES", 5),
    Column::whole("RELAYS", 6),
    Column::whole("ACCEPTED", 4),
    Column::text("NAMES", 2, 10),
];

pub(super) async fn list(db: &PgPool, as_json: bool) -> anyhow::Result<()> {
    let services = view::services(db).await?;
    if as_json {
        return print::json(&services);
    }
    if services.is_empty() {
        return print::line("no service yet: `tender grasp add wss://git.example.com` adds one");
    }
    let mut table = Table::new(&COLUMNS);
    for one in &services {
        table.add_row(vec![
            Cell::new(&one.url),
            condition(one),
            one.repositories.into(),
            one.relays.into(),
            one.accepted.into(),
            one.names.join(" ").into(),
        ]);
    }
    table.print()?;
    services.iter().flat_map(warnings).try_for_each(|told| print::line(&told))
}

/// Returns why a service does not receive or publish everything, one sentence for each cause.
fn warnings(one: &ServiceRow) -> impl Iterator<Item = String> {
    let is_kept = one.removing_at.is_none();
    let stopped = words::stopped(&one.url, one.has_feed, one.has_uploads).filter(|_| is_kept);
    stopped.into_iter().chain(refuses_others(one))
}

fn refuses_others(one: &ServiceRow) -> Option<String> {
    words::refuses_others(&one.url, one.refuses_others.as_deref())
}

fn condition(one: &ServiceRow) -> Cell {
    match (one.removing_at, one.enabled) {
        (Some(_), _) => Cell::new("removing").fg(Color::Yellow),
        (None, true) => Cell::new("on").fg(Color::Green),
        (None, false) => Cell::new("off"),
    }
}

pub(super) async fn show(db: &PgPool, name: &str, as_json: bool) -> anyhow::Result<()> {
    let one = named(db, name).await?;
    let mut decisions = view::decisions(db).await?;
    decisions.retain(|decision| decision.service == one.url);
    let mut parked = view::parked_groups(db).await?;
    parked.retain(|group| group.service_id == one.id);
    if as_json {
        return print::json(&json!({ "service": one, "decisions": decisions, "parked": parked }));
    }
    print::pairs(&facts(&one, queue::now(db).await?))?;
    for (outcome, title) in
        [("accepted", "accepted by source"), ("parked", "parked since it was added, by reason")]
    {
        let of = decisions.iter().filter(|decision| decision.outcome == outcome);
        print_counts(title, of)?;
    }
    warnings(&one).try_for_each(|told| print::line(&format!("\n{told}")))
}

fn facts(one: &ServiceRow, now: DateTime<Utc>) -> Vec<(&'static str, String)> {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let over = match one.relays_over_limit {
        0 => String::new(),
        1 => ", 1 more is named and not followed".to_owned(),
        over => format!(", {over} more are named and not followed"),
    };
    vec![
        ("url", one.url.clone()),
        ("id", one.id.to_string()),
        ("names", one.names.join(", ")),
        ("enabled", yes(one.enabled)),
        (
            "removing",
            one.removing_at.map_or_else(|| "no".to_owned(), |at| print::relative(at, now)),
        ),
        (
            "starts from",
            if one.bootstrap.is_empty() { "-".to_owned() } else { one.bootstrap.join(", ") },
        ),
        ("repositories", one.repositories.to_string()),
        ("relays", format!("{} of at most {}{over}", one.relays, one.max_relays)),
        ("relays per announcement", format!("at most {}", one.max_relays_per_announcement)),
        ("accepted", one.accepted.to_string()),
        ("private addresses", yes(one.allow_private)),
        ("store is judged", yes(one.is_scanned)),
        ("policy", one.policy.to_string()),
    ]
}

fn print_counts<'a>(
    title: &str,
    decisions: impl Iterator<Item = &'a Decision>,
) -> anyhow::Result<()> {
    let counts: Vec<_> = decisions.map(|one| format!("{} {}", one.events, one.name)).collect();
    if counts.is_empty() {
        return Ok(());
    }
    print::line(&format!("\n{title}: {}", counts.join(", ")))
}
