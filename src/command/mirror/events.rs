//! `mirror diff`, `wipe`, `redelete`: the commands on stored events.

use anyhow::Context;
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    console::operator as record,
    mirror::{
        deployment,
        event::{self, EventId},
        lane, work,
    },
    queue,
};
use tender_workers::mirror::{self, Connections};

use super::upstream::named;
use crate::{
    command::{ask::Yes, operator, print},
    config::Config,
    words::counted,
};

pub(super) async fn diff(
    db: &PgPool,
    config: &Config,
    name: &str,
    hours: u32,
    as_json: bool,
) -> anyhow::Result<()> {
    let upstream = named(db, name).await?;
    let settings = upstream.settings(&deployment::settings(db).await?);
    let connections = Connections::new(&config.mirror);
    let now = queue::now(db).await?.timestamp();
    let window = ((now - 3600 * i64::from(hours)).max(0), now);
    let compared = mirror::diff::diff(db, &connections, &upstream, &settings, window).await;
    let found = compared.with_context(|| format!("failed to compare with {}", upstream.url))?;
    let hex = |ids: &[EventId]| -> Vec<String> { ids.iter().map(ToString::to_string).collect() };
    if as_json {
        return print::json(&json!({
            "ours": found.ours, "missing_there": hex(&found.have), "missing_here": hex(&found.need),
            "unproven": found.unproven,
        }));
    }
    for id in hex(&found.have) {
        print::line(&format!("missing there  {id}"))?;
    }
    for id in hex(&found.need) {
        print::line(&format!("missing here   {id}"))?;
    }
    for (since, until) in &found.unproven {
        print::line(&format!(
            "not compared   {since} to {until} (Unix seconds): the upstream shows only a part of its events"
        ))?;
    }
    print::line(&format!(
        "last {} h: of {} known here, {} are missing there; {} are missing here",
        hours,
        found.ours,
        found.have.len(),
        found.need.len()
    ))
}

pub(super) async fn wipe(db: &PgPool, yes: Yes, as_json: bool) -> anyhow::Result<()> {
    let events = counted(event::stats(db).await?.total, "stored event");
    let lanes = counted(lane::number(db, None).await?, "lane");
    yes.or_asks(&format!("Delete all of {events}, and the progress of {lanes}, for good?")).await?;
    event::wipe(db).await?;
    record::record(db, &operator().who, "wipe_events", "all", "").await?;
    print::done(as_json, "deleted every event and all progress")
}

pub(super) async fn redelete(db: &PgPool, as_json: bool) -> anyhow::Result<()> {
    let words = format!("enqueued {} deletions", work::push_deletions(db).await?);
    record::record(db, &operator().who, "redelete_events", "all", &words).await?;
    print::done(as_json, &words)
}
