//! What `sync status` and `sync relays` print.

use chrono::{DateTime, Utc};
use comfy_table::{Cell, Color};
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    event,
    lane::{self, LaneKind, LaneState},
    queue, upstream,
};

use super::takes_part;
use crate::{
    command::{
        print,
        upstream::{negentropy_of, yes},
    },
    config::Config,
};

pub(super) async fn print(db: &PgPool, config: &Config, as_json: bool) -> anyhow::Result<()> {
    let stale = 60 * config.work.sync.settings.stale_threshold_minutes;
    let lanes = lane::states(db, stale).await?;
    let events = event::stats(db, false).await?;
    let waiting = queue::waiting_work(db).await?;
    let (upstreams, connections) = (upstream::list(db).await?, upstream::connections(db).await?);
    if as_json {
        return print::json(&json!({
            "lanes": lanes, "events": events, "waiting": waiting, "upstreams": upstreams,
            "connections": connections,
        }));
    }
    let now = queue::now(db).await?;
    if lanes.is_empty() {
        print::line("nothing was synced yet: `tender sync trigger backfill`")?;
    } else {
        print_lanes(&lanes, now)?;
    }
    print::line(&format!(
        "\nevents: {} in all, {} stored today, {:.1} a minute",
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
                    "{} with {} subscriptions, {} attempts, in {}",
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

/// A lane's marker.
fn marker(lane: &LaneState) -> Cell {
    match lane.status.as_str() {
        "completed" => Cell::new("[OK]").fg(Color::Green),
        "syncing" => Cell::new("[..]").fg(Color::Cyan),
        "error" => Cell::new("[!!]").fg(Color::Red),
        _ => Cell::new("[--]"),
    }
}

/// Lanes as a table, their errors below.
pub(in crate::command) fn print_lanes(
    lanes: &[LaneState],
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
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
            print::line(&format!("{} {}: {error}; again {again}", lane.url, lane.lane))?;
        }
    }
    Ok(())
}

/// Upstreams as the modes see them.
pub(super) async fn relays(db: &PgPool, as_json: bool) -> anyhow::Result<()> {
    let upstreams = upstream::list(db).await?;
    if as_json {
        return print::json(&upstreams);
    }
    let mut table = print::table(&["URL", "ENABLED", "BACKFILL", "NEGENTROPY", "DIRECTION"]);
    for one in &upstreams {
        table.add_row(vec![
            Cell::new(&one.url),
            yes(one.enabled).into(),
            yes(one.backfill).into(),
            negentropy_of(one).into(),
            one.direction.as_str().into(),
        ]);
    }
    print::line(&table.trim_fmt())?;
    let of = |is: fn(&upstream::Upstream) -> bool| upstreams.iter().filter(|one| is(one)).count();
    print::line(&format!(
        "\n{} in all, {} enabled, {} with backfill, {} with negentropy, {} download, {} upload",
        upstreams.len(),
        of(|one| one.enabled),
        takes_part(&upstreams, LaneKind::Backfill),
        of(|one| one.enabled && one.negentropy),
        takes_part(&upstreams, LaneKind::Realtime),
        takes_part(&upstreams, LaneKind::Upload),
    ))
}
