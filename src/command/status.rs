//! `status`: whether something needs attention, on one screen.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{
    load,
    print::{self, Cell},
    with_database,
};
use crate::{
    config::Needs,
    fleet::{Fleet, Item},
};

/// Prints the counts of relays and what needs attention. The exit code is 1 if something does.
pub(super) async fn run(as_json: bool) -> anyhow::Result<ExitCode> {
    let config = load(Needs::Database, "warn")?;
    let fleet =
        with_database(&config, async |database| Ok(Fleet::read(&database.pool).await?)).await?;
    let (items, snoozed) = (fleet.attention(), fleet.snoozed());
    if as_json {
        let summary = &fleet.summary;
        print::json(&json!({ "relays": summary, "attention": items, "snoozed": snoozed }))?;
    } else {
        print::line(&counts(&fleet))?;
        let listed = items.iter().map(|item| vec![mark(item), line(item, fleet.now).into()]);
        let aside =
            snoozed.iter().map(|item| vec!["-".into(), snoozed_line(item, fleet.now).into()]);
        print::prose(&listed.chain(aside).collect::<Vec<_>>())?;
        if items.is_empty() {
            let else_ = if fleet.snoozed().is_empty() { "" } else { " else" };
            print::line(&format!("nothing{else_} needs attention"))?;
        }
    }
    Ok(if items.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn counts(fleet: &Fleet) -> String {
    let (summary, workers) = (&fleet.summary, fleet.workers.len());
    format!(
        "{} relays: {} synced, {} pending, {} failing, {} gave up; {workers} workers",
        summary.total, summary.synced, summary.pending, summary.retrying, summary.gave_up,
    )
}

/// Two exclamation marks for what stops work.
fn mark(item: &Item) -> Cell {
    Cell::new(if item.is_grave { "!!" } else { "!" })
}

/// An item on one line, with the command that shows or solves it.
pub(super) fn line(item: &Item, now: DateTime<Utc>) -> String {
    let since = item.since.map(|since| format!(", for {}", print::distance(since, now)));
    let error = (!item.error.is_empty()).then(|| format!(": {}", item.error));
    let advice = (!item.advice.is_empty()).then(|| format!(". {}", item.advice.replace('`', "")));
    let command = (!item.command.is_empty()).then(|| format!(" ({})", item.command));
    let grown = item.grown_from().map(|from| format!("; snoozed at {from}, listed again"));
    let parts = [Some(item.headline.clone()), since, error, advice, grown, command];
    print::visible(&parts.into_iter().flatten().collect::<String>())
}

fn snoozed_line(item: &Item, now: DateTime<Utc>) -> String {
    let snooze = item.snooze.as_ref().map(|snooze| {
        format!(
            " (snoozed by {}, ends {}: {})",
            snooze.who,
            print::relative(snooze.ends_at, now),
            snooze.reason
        )
    });
    print::visible(&format!("{}{}", item.headline, snooze.unwrap_or_default()))
}
