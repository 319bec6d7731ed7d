//! `grasp plan`, and the lists of what is missing, what is fetched, and what a relay did not show.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::grasp::view::{self, BatchRow, GapRow, MissingRow, PlannedBatch};

use super::relay::named;
use crate::{
    command::print::{self, Cell, Column, Table},
    words::{
        counted,
        grasp::{self as words, Group, Next},
    },
};

/// The most lines of items that are missing for the same reason.
const GROUPS: usize = 20;

pub(super) async fn plan(db: &PgPool, name: &str, as_json: bool) -> anyhow::Result<()> {
    let one = named(db, name).await?;
    let batches = view::plan(db, one.id).await?;
    if as_json {
        return print::json(&json!({ "url": one.url, "batches": batches }));
    }
    if batches.is_empty() {
        return print::line(&format!(
            "nothing is due: {} delivered, {} in flight, {} missing",
            words::delivered(one.confirmed, one.items()),
            one.in_flight,
            one.missing
        ));
    }
    batches.iter().try_for_each(print_planned)
}

fn print_planned(batch: &PlannedBatch) -> anyhow::Result<()> {
    let failed = match batch.attempts {
        0 => String::new(),
        number => format!(", after {} that failed", counted(i64::from(number), "attempt")),
    };
    let items = i64::try_from(batch.items).unwrap_or(i64::MAX);
    print::line(&format!("{}: {}{failed}", batch.family, counted(items, "item")))?;
    for filter in &batch.filters {
        print::line(&format!("  {filter}"))?;
    }
    for (item, reason) in &batch.unusable {
        print::line(&format!("  not asked: {}: {reason}", print::visible(item)))?;
    }
    Ok(())
}

/// Prints items that are not delivered, each with the reason and the next attempt.
pub(super) fn print_missing(
    missing: &[MissingRow],
    total: i64,
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    print::line("\nmissing, the oldest first")?;
    let groups = words::grouped(missing, now);
    let shown = &groups[..groups.len().min(GROUPS)];
    shown.iter().try_for_each(|group| print_group(group, now))?;
    more(total, shown.iter().map(|group| group.number).sum())
}

fn print_group(group: &Group<'_>, now: DateTime<Utc>) -> anyhow::Result<()> {
    let next = match group.next {
        Next::InFlight => "in flight".to_owned(),
        Next::At(at) => format!("next try {}", print::relative(at, now)),
        Next::Never => "no next try".to_owned(),
    };
    let Group { first, .. } = group;
    print::line(&format!(
        "  {} from {}, wanted {}",
        print::visible(&group.words(str::to_owned)),
        first.url,
        print::relative(first.wanted_at, now),
    ))?;
    print::line(&format!("    {}; {next}", words::why(first)))
}

/// Prints how many rows a list leaves out.
fn more(total: i64, listed: i64) -> anyhow::Result<()> {
    match total - listed {
        ..=0 => Ok(()),
        more => print::line(&format!("  and {more} more")),
    }
}

const BATCHES: [Column; 7] = [
    Column::whole("BATCH", Column::ALWAYS),
    Column::whole("STATUS", 9),
    Column::whole("BEGUN", 8),
    Column::whole("ITEMS", 5),
    Column::whole("PURPOSE", 3),
    Column::whole("EVENTS", 4),
    Column::text("REASON", 7, 16),
];

pub(super) fn print_batches(batches: &[BatchRow], now: DateTime<Utc>) -> anyhow::Result<()> {
    if batches.is_empty() {
        return Ok(());
    }
    print::line("")?;
    let mut table = Table::new(&BATCHES);
    for one in batches {
        table.add_row(vec![
            Cell::new(one.id),
            one.status.as_str().into(),
            print::distance(one.begun_at, now).into(),
            words::items(one.items.into(), &one.family).into(),
            one.purpose.as_str().into(),
            format!("{}/{}", one.stored, one.received).into(),
            one.reason.as_deref().unwrap_or_default().into(),
        ]);
    }
    table.print()
}

pub(super) fn print_gaps(gaps: &[GapRow], total: i64) -> anyhow::Result<()> {
    if gaps.is_empty() {
        return Ok(());
    }
    print::line("\ngaps")?;
    for one in gaps {
        let at = |second: i64| {
            let at = DateTime::from_timestamp(second, 0);
            at.map_or_else(|| second.to_string(), |at| at.format("%F %T").to_string())
        };
        print::line(&format!(
            "  {} to {}, {}: {}",
            at(one.since),
            at(one.until),
            words::items(one.items.into(), &one.family),
            print::visible(&one.reason)
        ))?;
    }
    more(total, i64::try_from(gaps.len()).unwrap_or(i64::MAX))
}
