//! `mirror trigger`, `recover`, `reset`: the commands on lanes.

use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    console::operator as record,
    mirror::{
        lane::{self, LaneKind, LaneState},
        upstream,
    },
};
use tender_workers::mirror::{self, orchestrate};

use super::{upstream::named, wait};
use crate::{
    command::{ask::Yes, flags::Flags, operator, print},
    words::counted,
};

pub(super) async fn trigger(
    db: &PgPool,
    mode: LaneKind,
    upstream: Option<&str>,
    wait: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let only = match upstream {
        Some(name) => Some(named(db, name).await?.id),
        None => None,
    };
    if !as_json {
        print::line(&format!("triggering {mode} for {}", upstream.unwrap_or("all upstreams")))?;
    }
    let dispatched = orchestrate::dispatch(db, mode, only, true).await?;
    let words = format!("{mode}: dispatched {} of {}", count(&dispatched), dispatched.len());
    record::record(db, &operator().who, "trigger_mirror", upstream.unwrap_or("all"), &words)
        .await?;
    if !as_json {
        print::line(&format!("dispatched {}", count(&dispatched)))?;
        print_skipped(&dispatched, only.is_none(), mode)?;
    }
    let lanes: Vec<_> = dispatched.iter().filter_map(|one| one.lane).collect();
    let ended = if wait {
        wait::until_done(db, &lanes, as_json || Flags::get().quiet).await?
    } else {
        Vec::new()
    };
    if as_json {
        print::json(&json!({ "mode": mode, "relays": dispatched, "ended": ended }))?;
    }
    let failures = failures(&dispatched, &ended);
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

/// Prints why upstreams were skipped. Of all upstreams, those that the mode does not concern are only
/// counted.
fn print_skipped(
    dispatched: &[orchestrate::Dispatch],
    is_all: bool,
    mode: LaneKind,
) -> anyhow::Result<()> {
    let is_counted = |one: &&orchestrate::Dispatch| is_all && one.is_unconcerned();
    for one in dispatched.iter().filter(|one| !is_counted(one)) {
        if let Some(why) = one.skipped {
            print::line(&format!("skipped {}: {why}", one.url))?;
        }
    }
    match dispatched.iter().filter(is_counted).count() {
        0 => Ok(()),
        number => print::line(&format!("skipped {number}: {mode} does not concern them")),
    }
}

/// Returns a sentence for each upstream whose work was not enqueued or has failed.
fn failures(dispatched: &[orchestrate::Dispatch], ended: &[LaneState]) -> Vec<String> {
    let unasked = dispatched
        .iter()
        .filter(|one| one.is_failed())
        .map(|one| format!("could not start {}: {}", one.url, one.skipped.unwrap_or_default()));
    let failed = ended.iter().filter(|lane| lane.status == "error").map(|lane| {
        let error = lane.error_message.as_deref().unwrap_or_default();
        format!("mirroring of {} failed in lane {}: {error}", lane.url, lane.lane)
    });
    unasked.chain(failed).collect()
}

fn count(dispatched: &[orchestrate::Dispatch]) -> usize {
    dispatched.iter().filter(|one| one.skipped.is_none()).count()
}

pub(super) async fn recover(
    db: &PgPool,
    stale: Option<u64>,
    error: Option<u64>,
    as_json: bool,
) -> anyhow::Result<()> {
    let (stale, error) = (stale.map(Duration::from_secs), error.map(Duration::from_secs));
    let recovered = mirror::recover_now(db, stale, error).await?;
    let (stale, errors) = (recovered.stale.len(), recovered.errors.len());
    let words = format!("recovered {stale} stale, {errors} errors");
    record::record(db, &operator().who, "recover_mirror", "all", &words).await?;
    if as_json {
        return print::json(&recovered);
    }
    print::line(&format!("Recovered: {stale} stale, {errors} errors"))
}

pub(super) async fn reset(
    db: &PgPool,
    name: Option<&str>,
    yes: Yes,
    as_json: bool,
) -> anyhow::Result<()> {
    let only = match name {
        Some(name) => Some(named(db, name).await?),
        None => None,
    };
    let (id, url) = (only.as_ref().map(|one| one.id), only.as_ref().map(|one| one.url.as_str()));
    let lanes = counted(lane::number(db, id).await?, "lane");
    let whose = url.unwrap_or("all upstreams");
    yes.or_asks(&format!("Forget everything believed of {whose}, the progress of {lanes}?"))
        .await?;
    let removed = upstream::reset(db, id, Some(&operator().who)).await?;
    let words = format!("removed the progress of {removed} lanes");
    print::done(as_json, &words)
}
