//! `mirror status`, and the table of lanes, which other commands also print.

use chrono::{DateTime, Utc};
use comfy_table::{Cell, Color};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    mirror::{
        self, event,
        lane::{self, LaneState},
        upstream,
    },
    queue,
};

use crate::{command::print, config::Config};

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

pub(super) async fn print(db: &PgPool, config: &Config, as_json: bool) -> anyhow::Result<()> {
    let stale = 60 * config.mirror.defaults.stale_threshold_minutes;
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
    let total: i64 = waiting.iter().map(|kind| kind.waiting).sum();
    let each: Vec<String> =
        waiting.iter().map(|kind| format!("{} {}", kind.waiting, kind.job)).collect();
    print::line(&format!(
        "jobs waiting: {total}{}{}",
        if total > 0 { ": " } else { "" },
        each.join(", ")
    ))?;
    for one in &upstreams {
        let mark = if one.enabled { "[ON]" } else { "[--]" };
        let of = connections.iter().filter(|connection| connection.upstream_id == one.id);
        let told: Vec<String> = of
            .map(|connection| {
                format!(
                    "{} with {} subscriptions, {} attempts, in process {}",
                    connection.state,
                    connection.subscriptions,
                    connection.attempts,
                    connection.process
                )
            })
            .collect();
        let told = if told.is_empty() { "not connected".to_owned() } else { told.join("; ") };
        print::line(&format!("{mark} {} {} — {told}", one.url, one.direction))?;
    }
    Ok(())
}

/// Returns the marker of a lane's status.
fn marker(lane: &LaneState) -> Cell {
    match lane.status.as_str() {
        "completed" => Cell::new("[OK]").fg(Color::Green),
        "syncing" => Cell::new("[..]").fg(Color::Cyan),
        "error" => Cell::new("[!!]").fg(Color::Red),
        _ => Cell::new("[--]"),
    }
}

/// Prints lanes as a table, and their errors below it.
pub(super) fn print_lanes(lanes: &[LaneState], now: DateTime<Utc>) -> anyhow::Result<()> {
    let header = [
        "",
        "URL",
        "LANE",
        "STATUS",
        "DONE",
        "DOWN",
        "UP",
        "REJECTED",
        "LAST SYNC",
        "FILTER",
        "DIRECTION",
    ];
    let mut table = print::table(&header);
    for lane in lanes {
        let last =
            lane.last_synced_at.map_or_else(|| "never".to_owned(), |at| print::relative(at, now));
        let status =
            if lane.is_stale { format!("{} (STALE)", lane.status) } else { lane.status.clone() };
        table.add_row(vec![
            marker(lane),
            lane.url.as_str().into(),
            lane.lane.as_str().into(),
            status.into(),
            lane.progress.map_or_else(|| "-".to_owned(), |done| format!("{done:.1} %")).into(),
            lane.stored.into(),
            lane.uploaded.into(),
            (lane.rejected + lane.upload_rejected).into(),
            last.into(),
            lane.filter_hash.as_str().into(),
            lane.direction.as_str().into(),
        ]);
    }
    print::line(&table.trim_fmt())?;
    for lane in lanes {
        if let Some(error) = &lane.error_message {
            let again = lane.retry_at.map(|at| print::relative(at, now)).unwrap_or_default();
            print::line(&format!("{} {}: {error}; next attempt {again}", lane.url, lane.lane))?;
        }
    }
    Ok(())
}
