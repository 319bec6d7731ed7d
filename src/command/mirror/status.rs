//! `mirror status`, and the table of lanes, which other commands also print.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    mirror::{
        self, deployment, event,
        lane::{self, Condition, LaneState},
        upstream::{self, Connection, Upstream},
    },
    queue::{self, WaitingKind},
};

use super::show::uploads_of;
use crate::{
    command::print::{self, Cell, Color, Column, Table},
    words::lane as words,
};

const COLUMNS: [Column; 11] = [
    Column::whole("", Column::ALWAYS),
    Column::text("URL", Column::ALWAYS, 24),
    Column::whole("LANE", 9),
    Column::whole("STATUS", 8),
    Column::whole("DONE", 6),
    Column::whole("DOWN", 4),
    Column::whole("UP", 4),
    Column::whole("REJECTED", 2),
    Column::whole("LAST SYNC", 5),
    Column::whole("FILTER", 1),
    Column::whole("DIRECTION", 1),
];

/// The positions of a lane that the ledger has in Unix seconds, as Nostr does.
const POSITIONS: [&str; 4] =
    ["cursor_at", "backfill_started_at", "backfill_target", "backfill_until"];

/// Returns lanes as JSON, in which every time is RFC 3339 in UTC as in the output of other commands.
pub(super) fn lanes_json<T: Serialize>(lanes: &[T]) -> serde_json::Result<Value> {
    let mut lanes = serde_json::to_value(lanes)?;
    for lane in lanes.as_array_mut().into_iter().flatten() {
        for name in POSITIONS {
            let at = lane[name].as_i64().and_then(|at| DateTime::from_timestamp(at, 0));
            if let Some(at) = at {
                lane[name] = json!(at);
            }
        }
    }
    Ok(lanes)
}

pub(super) async fn print(db: &PgPool, as_json: bool) -> anyhow::Result<()> {
    let stale = 60 * deployment::settings(db).await?.stale_threshold_minutes;
    let lanes = lane::states(db, stale).await?;
    let events = event::stats(db).await?;
    let waiting = queue::waiting_kinds(db, &mirror::QUEUES).await?;
    let (upstreams, connections) = (upstream::list(db).await?, upstream::connections(db).await?);
    if as_json {
        return print::json(&json!({
            "lanes": lanes_json(&lanes)?, "events": events, "waiting": waiting, "upstreams": upstreams,
            "connections": connections,
        }));
    }
    let now = queue::now(db).await?;
    if lanes.is_empty() {
        print::line("no lanes yet: `tender mirror trigger backfill` starts mirroring")?;
    } else {
        print_lanes(&lanes, now)?;
    }
    print::line(&format!(
        "\nevents: {} in total, {} stored today, {:.1} per minute (5-minute average)",
        events.total, events.today, events.per_minute
    ))?;
    print::line(&waiting_words(&waiting))?;
    let rows = upstreams.iter().flat_map(|one| upstream_rows(one, &connections));
    print::prose(&rows.collect::<Vec<_>>())
}

/// Returns whether an upstream is enabled and connected, and what it does not take.
fn upstream_rows(one: &Upstream, connections: &[Connection]) -> Vec<Vec<Cell>> {
    let mark = if one.enabled { "[ON]" } else { "[--]" };
    let of = connections.iter().filter(|connection| connection.upstream_id == one.id);
    let told: Vec<String> = of
        .map(|connection| {
            format!(
                "{} with {} subscriptions, {} attempts, in process {}",
                connection.state, connection.subscriptions, connection.attempts, connection.process
            )
        })
        .collect();
    let told = if told.is_empty() { "not connected".to_owned() } else { told.join("; ") };
    let mut rows =
        vec![vec![mark.into(), format!("{} {} — {told}", one.url, one.direction).into()]];
    if one.authors_only_reason.is_some() {
        rows.push(vec!["".into(), format!("uploads: {}", uploads_of(one)).into()]);
    }
    rows
}

/// Returns how many jobs wait, in total and by kind and queue.
fn waiting_words(waiting: &[WaitingKind]) -> String {
    let total: i64 = waiting.iter().map(|kind| kind.waiting).sum();
    let each =
        waiting.iter().map(|kind| format!("{} {} in {}", kind.waiting, kind.job, kind.queue));
    match total {
        0 => "jobs waiting: 0".to_owned(),
        total => format!("jobs waiting: {total} ({})", each.collect::<Vec<_>>().join(", ")),
    }
}

/// Returns the marker of a lane's condition.
fn marker(lane: &LaneState) -> Cell {
    match lane.condition() {
        Condition::Completed => Cell::new("[OK]").fg(Color::Green),
        Condition::Syncing => Cell::new("[..]").fg(Color::Cyan),
        Condition::Error => Cell::new("[!!]").fg(Color::Red),
        Condition::Retrying | Condition::Stale => Cell::new("[!.]").fg(Color::Yellow),
        Condition::Gaps => Cell::new("[?!]").fg(Color::Yellow),
        Condition::Idle => Cell::new("[--]"),
    }
}

/// Prints lanes as a table, and below it what failed and what is missing.
pub(super) fn print_lanes(lanes: &[LaneState], now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut table = Table::new(&COLUMNS);
    for lane in lanes {
        let last =
            lane.last_synced_at.map_or_else(|| "never".to_owned(), |at| print::relative(at, now));
        table.add_row(vec![
            marker(lane),
            lane.url.as_str().into(),
            lane.lane.as_str().into(),
            status(lane).into(),
            words::progress(lane)
                .map_or_else(|| "-".to_owned(), |done| format!("{done:.1} %"))
                .into(),
            lane.stored.into(),
            lane.uploaded.into(),
            (lane.rejected + lane.upload_rejected).into(),
            last.into(),
            lane.filter_hash.as_str().into(),
            lane.direction.as_str().into(),
        ]);
    }
    table.print()?;
    let troubles: Vec<_> = lanes.iter().flat_map(|lane| troubles(lane, now)).collect();
    if !troubles.is_empty() {
        print::line("")?;
    }
    print::prose(&troubles)
}

/// Returns the condition of a lane; for a stale lane also the status that its holder left.
fn status(lane: &LaneState) -> String {
    match lane.condition() {
        Condition::Stale => format!("{} (STALE)", lane.status),
        condition => condition.as_str().to_owned(),
    }
}

/// Returns what is wrong with a lane: its failure, its refused uploads and its gaps, each beside its name.
fn troubles(lane: &LaneState, now: DateTime<Utc>) -> Vec<Vec<Cell>> {
    let at = |time: Option<DateTime<Utc>>| time.map(|time| print::relative(time, now));
    let mut told = Vec::new();
    if let (Some(failure), Some(error)) = (words::failure(lane), &lane.last_error) {
        let when = at(lane.last_error_at).unwrap_or_default();
        let next = at(lane.retry_at.or(lane.next_attempt_at));
        let next = next.map(|next| format!("; next attempt {next}")).unwrap_or_default();
        told.push(format!("{failure} {when}: {error}{next}"));
    }
    told.extend(words::uploads(lane, &at(lane.upload_refused_at).unwrap_or_default()));
    if let Some(gaps) = words::gaps(lane) {
        let since = at(lane.gaps_since).unwrap_or_default();
        let next = at(lane.gap_retry_at).unwrap_or_default();
        told.push(format!("missing, the oldest found {since}: {gaps}; next retry {next}"));
    }
    let name = format!("{} {}:", lane.url, lane.lane);
    told.into_iter().map(|words| vec![format!("{name} {words}").into()]).collect()
}
