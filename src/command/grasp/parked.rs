//! `grasp parked`: events that are refused for now.

use chrono::{DateTime, Utc};
use clap::{Args, builder::PossibleValuesParser};
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    grasp::{
        parked,
        policy::Reason,
        view::{self, ParkedGroup, ParkedRow, ParkedSearch},
    },
    queue,
};

use super::service;
use crate::command::print::{self, Cell, Column, Size, Table};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// List the events that are parked for this reason; without it, count them by reason.
    #[arg(long, value_name = "CODE", value_parser = codes())]
    reason: Option<String>,
    /// Only events of this service: its address or id.
    #[arg(long, value_name = "URL")]
    service: Option<String>,
    /// Only events after this one: the mark at the end of the page before.
    #[arg(long, value_name = "MARK", requires = "reason", value_parser = mark)]
    after: Option<(DateTime<Utc>, String)>,
    #[command(flatten)]
    size: Size,
}

/// The codes of the reasons.
fn codes() -> PossibleValuesParser {
    PossibleValuesParser::new(Reason::ALL.iter().map(|one| one.as_str()))
}

/// Parses the mark of a page.
fn mark(text: &str) -> Result<(DateTime<Utc>, String), &'static str> {
    ParkedSearch::parse_mark(text)
        .ok_or("not the mark of a page: copy the one that `tender grasp parked` prints")
}

pub(super) async fn list(db: &PgPool, list: List, as_json: bool) -> anyhow::Result<()> {
    let service = match &list.service {
        Some(name) => Some(service::named(db, name).await?.id),
        None => None,
    };
    let Some(reason) = list.reason else {
        let mut groups = view::parked_groups(db).await?;
        groups.retain(|group| service.is_none_or(|id| group.service_id == id));
        return if as_json {
            print::json(&groups)
        } else {
            print_groups(&groups, queue::now(db).await?)
        };
    };
    let search = ParkedSearch { service, reason: Some(reason), after: list.after };
    let rows = view::parked(db, &search, list.size.read()).await?;
    let (rows, cut) = list.size.cut(rows, ParkedRow::mark);
    if as_json {
        print::json(&json!({ "events": rows, "after": cut.mark() }))?;
    } else {
        print_rows(&rows, queue::now(db).await?)?;
    }
    cut.say()
}

const GROUPS: [Column; 5] = [
    Column::whole("REASON", Column::ALWAYS),
    Column::whole("EVENTS", 9),
    Column::whole("OLDEST", 4),
    Column::whole("NEWEST", 3),
    Column::text("SERVICE", 6, 20),
];

fn print_groups(groups: &[ParkedGroup], now: DateTime<Utc>) -> anyhow::Result<()> {
    if groups.is_empty() {
        return print::line("no event is parked");
    }
    let mut table = Table::new(&GROUPS);
    for one in groups {
        table.add_row(vec![
            Cell::new(&one.reason),
            one.events.into(),
            print::distance(one.oldest_at, now).into(),
            print::distance(one.newest_at, now).into(),
            one.service.as_str().into(),
        ]);
    }
    table.print()
}

fn print_rows(rows: &[ParkedRow], now: DateTime<Utc>) -> anyhow::Result<()> {
    if rows.is_empty() {
        return print::line("no event is parked for this reason; `tender grasp parked` counts all");
    }
    for one in rows {
        print::line(&format!("{} kind {} by {}", one.event_id, one.kind, one.pubkey))?;
        print::line(&format!("  {}: {}", one.reason, print::visible(&one.detail)))?;
        let waits = one.waits_for.iter().map(|key| print::visible(&parked::describe(key)));
        let waits = waits.collect::<Vec<_>>();
        let waits =
            if waits.is_empty() { "waits for nothing".to_owned() } else { waits.join("; ") };
        print::line(&format!(
            "  from {}, parked {}, forgotten {}; {waits}",
            one.relay.as_deref().unwrap_or("an unknown relay"),
            print::relative(one.parked_at, now),
            print::relative(one.expires_at, now),
        ))?;
    }
    Ok(())
}
