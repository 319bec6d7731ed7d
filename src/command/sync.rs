//! `sync …`: event sync at a glance, and what an operator does with it.

mod status;
mod wait;

use std::{io::BufRead, time::Duration};

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    event::EventId,
    lane::{self, LaneKind},
    operator, queue,
    upstream::{
        self,
        settings::{NUMBERS, Settings},
    },
};
use tender_workers::sync::{self, Connections, orchestrate};

use super::{load, operator, print, upstream::named, with_database};
use crate::config::{Config, Needs};

pub(super) use status::print_lanes;

#[derive(Debug, Subcommand)]
pub(crate) enum SyncCommand {
    /// Lanes, events, what waits, upstreams and connections.
    Status,
    /// Enqueue the work of a mode now, of all upstreams or of one; a cool-down does not count.
    Trigger {
        #[arg(value_enum, default_value = "realtime")]
        mode: ModeArg,
        /// Address or id of an upstream.
        upstream: Option<String>,
        /// Wait until it is done, with a progress bar.
        #[arg(long)]
        wait: bool,
    },
    /// Enqueue what a start does: history that is not done.
    Boot,
    /// Free lanes whose holder died and lanes that rested long enough.
    Recover {
        /// Silence after which a holder counts as dead, in seconds.
        #[arg(long, value_name = "SECONDS")]
        stale: Option<u64>,
        /// Age after which an error is over, in seconds.
        #[arg(long, value_name = "SECONDS")]
        error: Option<u64>,
    },
    /// Forget the progress of an upstream's lanes, or of all: they begin anew. Events stay.
    Reset {
        /// Address or id of an upstream.
        upstream: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// List upstreams as the modes see them.
    Relays,
    /// Show every setting; with an upstream, what holds for it.
    Config {
        /// Address or id of an upstream.
        upstream: Option<String>,
    },
    /// Print what either side lacks, by negentropy, and change nothing.
    Diff {
        /// Address or id of an upstream.
        upstream: String,
        /// How far back, in hours.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=175_200))]
        hours: u32,
    },
    /// Delete every stored event and all progress. Asks first.
    Wipe {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Apply every stored deletion once more, in the background.
    Redelete,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ModeArg {
    Realtime,
    Backfill,
    Full,
    Upload,
}

impl From<ModeArg> for LaneKind {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Realtime => Self::Realtime,
            ModeArg::Backfill => Self::Backfill,
            ModeArg::Full => Self::Full,
            ModeArg::Upload => Self::Upload,
        }
    }
}

impl SyncCommand {
    pub(super) async fn run(self, json: bool) -> anyhow::Result<()> {
        let config = load(Needs::Database, "warn")?;
        with_database(&config, async |database| {
            let db = &database.pool;
            match self {
                Self::Status => status::print(db, &config, json).await,
                Self::Trigger { mode, upstream, wait } => {
                    trigger(db, &config, mode.into(), upstream.as_deref(), wait, json).await
                }
                Self::Boot => trigger(db, &config, LaneKind::Backfill, None, false, json).await,
                Self::Recover { stale, error } => recover(db, &config, stale, error, json).await,
                Self::Reset { upstream, yes } => reset(db, upstream.as_deref(), yes, json).await,
                Self::Relays => status::relays(db, json).await,
                Self::Config { upstream } => {
                    show_config(db, &config, upstream.as_deref(), json).await
                }
                Self::Diff { upstream, hours } => diff(db, &config, &upstream, hours, json).await,
                Self::Wipe { yes } => wipe(db, yes, json).await,
                Self::Redelete => redelete(db, json).await,
            }
        })
        .await
    }
}

async fn trigger(
    db: &PgPool,
    config: &Config,
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
        print::line(&format!("triggers {mode} of {}", upstream.unwrap_or("all upstreams")))?;
    }
    let settings = &config.work.sync.settings;
    let dispatched = orchestrate::dispatch(db, settings, mode, only, true).await?;
    let words = format!("{mode}: {} of {}", count(&dispatched), dispatched.len());
    operator::record(db, &operator().who, "trigger_sync", upstream.unwrap_or("all"), &words)
        .await?;
    if !as_json {
        print::line(&format!("dispatched {}", count(&dispatched)))?;
        for one in &dispatched {
            if let Some(why) = one.skipped {
                print::line(&format!("skipped {}: {why}", one.url))?;
            }
        }
    }
    let lanes: Vec<_> = dispatched.iter().filter_map(|one| one.lane).collect();
    let ended = if wait { wait::until_done(db, &lanes, as_json).await? } else { Vec::new() };
    if as_json {
        print::json(&json!({ "mode": mode, "relays": dispatched, "ended": ended }))?;
    }
    if let Some(failed) = ended.iter().find(|lane| lane.status == "error") {
        bail!("{} failed: {}", failed.url, failed.error_message.as_deref().unwrap_or_default());
    }
    Ok(())
}

fn count(dispatched: &[orchestrate::Dispatch]) -> usize {
    dispatched.iter().filter(|one| one.skipped.is_none()).count()
}

async fn recover(
    db: &PgPool,
    config: &Config,
    stale: Option<u64>,
    error: Option<u64>,
    as_json: bool,
) -> anyhow::Result<()> {
    let (stale, error) = (stale.map(Duration::from_secs), error.map(Duration::from_secs));
    let recovered = sync::recover_now(db, &config.work.sync.settings, stale, error).await?;
    if as_json {
        return print::json(&recovered);
    }
    let (stale, errors) = (recovered.stale.len(), recovered.errors.len());
    print::line(&format!("Recovered: {stale} stale, {errors} errors"))
}

async fn reset(
    db: &PgPool,
    upstream: Option<&str>,
    yes: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let only = match upstream {
        Some(name) => Some(named(db, name).await?.id),
        None if yes || confirmed("Forget the progress of all upstreams?").await? => None,
        None => return print::done(as_json, "cancelled"),
    };
    let removed = lane::reset(db, only).await?;
    let words = format!("removed {removed} sync states");
    operator::record(db, &operator().who, "reset_sync", upstream.unwrap_or("all"), &words).await?;
    print::done(as_json, &words)
}

/// Asks y/N; the end of input is no.
async fn confirmed(question: &str) -> anyhow::Result<bool> {
    print::line(&format!("{question} [y/N]"))?;
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map(|_| answer)
    });
    Ok(matches!(answer.await??.trim(), "y" | "Y" | "yes"))
}

async fn show_config(
    db: &PgPool,
    config: &Config,
    upstream: Option<&str>,
    as_json: bool,
) -> anyhow::Result<()> {
    let deployment = &config.work.sync.settings;
    let (settings, own) = match upstream {
        Some(name) => {
            let upstream = named(db, name).await?;
            (upstream.settings(deployment), upstream.config)
        }
        None => (deployment.clone(), json!({})),
    };
    if as_json {
        return print::json(&json!({ "settings": settings.to_json(), "overridden": own }));
    }
    print_settings(&settings, &own)
}

fn print_settings(settings: &Settings, own: &Value) -> anyhow::Result<()> {
    let mut group = "";
    for number in NUMBERS {
        if number.group != group {
            group = number.group;
            print::line(&format!("\n{group}"))?;
        }
        let value = settings.get(number);
        let mark = match () {
            () if own.get(number.name).is_some() => " (this upstream's)",
            () if value != number.default => " (this deployment's)",
            () => "",
        };
        let years = if number.name == "backfill_since_hours" {
            format!(", {}.{} years", value / 8760, value % 8760 * 10 / 8760)
        } else {
            String::new()
        };
        print::line(&format!("  {:<28} {value}{years}{mark}", number.name))?;
        print::line(&format!("  {:<28} {}", "", number.about))?;
    }
    print::line("\nwhat is synced")?;
    let kinds = if settings.event_kinds.is_empty() {
        "all".to_owned()
    } else {
        format!("{:?}", settings.event_kinds)
    };
    print::line(&format!("  {:<28} {kinds}", "event_kinds"))?;
    print::line(&format!("  {:<28} {}", "filter", Value::Object(settings.filter.to_json())))
}

async fn diff(
    db: &PgPool,
    config: &Config,
    name: &str,
    hours: u32,
    as_json: bool,
) -> anyhow::Result<()> {
    let upstream = named(db, name).await?;
    let settings = upstream.settings(&config.work.sync.settings);
    let connections = Connections::new(1, config.work.sync.key.clone());
    let now = queue::now(db).await?.timestamp();
    let window = ((now - 3600 * i64::from(hours)).max(0), now);
    let compared = sync::diff::diff(db, &connections, &upstream, &settings, window).await;
    let found = compared.with_context(|| format!("failed to compare with {}", upstream.url))?;
    let hex = |ids: &[EventId]| -> Vec<String> { ids.iter().map(ToString::to_string).collect() };
    if as_json {
        return print::json(&json!({
            "ours": found.ours, "missing_there": hex(&found.have), "missing_here": hex(&found.need),
        }));
    }
    for id in hex(&found.have) {
        print::line(&format!("missing there  {id}"))?;
    }
    for id in hex(&found.need) {
        print::line(&format!("missing here   {id}"))?;
    }
    print::line(&format!(
        "{} h: of {} known here, {} are missing there; {} are missing here",
        hours,
        found.ours,
        found.have.len(),
        found.need.len()
    ))
}

async fn wipe(db: &PgPool, yes: bool, as_json: bool) -> anyhow::Result<()> {
    if !yes && !confirmed("Delete every stored event and all progress?").await? {
        return print::done(as_json, "cancelled");
    }
    tender_jobs::event::wipe(db).await?;
    operator::record(db, &operator().who, "wipe_events", "all", "").await?;
    print::done(as_json, "every event and all progress is deleted")
}

async fn redelete(db: &PgPool, as_json: bool) -> anyhow::Result<()> {
    let enqueued = queue::push_deletions(db).await?;
    print::done(as_json, &format!("enqueued {enqueued} deletions"))
}

/// Upstreams that a mode is for, for people.
pub(super) fn takes_part(upstreams: &[upstream::Upstream], mode: LaneKind) -> usize {
    upstreams.iter().filter(|one| mode.is_for(one)).count()
}
