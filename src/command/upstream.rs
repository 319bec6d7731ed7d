//! `upstream …`: the relays that events are kept in step with.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Cell, Color};
use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    lane, operator, queue,
    relay::{self, RelayId},
    upstream::{self, Change, Upstream, UpstreamError},
};

use super::{load, operator, print, with_database};
use crate::config::Needs;

#[derive(Debug, Subcommand)]
pub(crate) enum UpstreamCommand {
    /// Add a relay to read from or write to; or one that we host.
    Add {
        /// Its address, ws:// or wss://.
        #[arg(required_unless_present = "relay", conflicts_with = "relay")]
        url: Option<String>,
        /// The id or host of a relay that we host: its wss:// address.
        #[arg(long)]
        relay: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change an upstream.
    Set {
        /// Address or id.
        upstream: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// List upstreams.
    List,
    /// Show one with its lanes.
    Show {
        /// Address or id.
        upstream: String,
    },
    /// Remove one and stop its work; its events stay.
    Remove {
        /// Address or id.
        upstream: String,
    },
    /// Add what a file lists and is not there yet; what is there stays as it is.
    Seed {
        /// A JSON list of objects with url and what else the API takes.
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DirectionArg {
    Down,
    Up,
    Both,
}

#[derive(Debug, Args)]
pub(crate) struct Fields {
    /// Which way events go.
    #[arg(long, value_enum)]
    direction: Option<DirectionArg>,
    /// Work on it at all.
    #[arg(long, value_name = "BOOL")]
    enabled: Option<bool>,
    /// Get its history too.
    #[arg(long, value_name = "BOOL")]
    backfill: Option<bool>,
    /// Try NIP-77.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    negentropy: Option<bool>,
    /// Keep a standing subscription, and push local changes at once.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    live: Option<bool>,
    /// What people should know of it.
    #[arg(long)]
    notes: Option<String>,
    /// What it sets differently, as JSON; replaced as a whole. See `tender sync config`.
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
}

impl Fields {
    fn change(self) -> anyhow::Result<Change> {
        let direction = self.direction.map(|direction| match direction {
            DirectionArg::Down => "down",
            DirectionArg::Up => "up",
            DirectionArg::Both => "both",
        });
        let config = self.config.as_deref().map(serde_json::from_str::<Value>).transpose();
        Ok(Change {
            enabled: self.enabled,
            backfill: self.backfill,
            negentropy: self.negentropy,
            live: self.live,
            direction: direction.map(str::to_owned),
            notes: self.notes,
            config: config.context("--config is not JSON, such as '{\"poll_page_limit\": 300}'")?,
            ..Change::default()
        })
    }
}

impl UpstreamCommand {
    pub(super) async fn run(self, json: bool) -> anyhow::Result<()> {
        let config = load(Needs::Database, "warn")?;
        with_database(&config, async |database| {
            let db = &database.pool;
            match self {
                Self::Add { url, relay, fields } => add(db, url, relay, fields, json).await,
                Self::Set { upstream, fields } => {
                    let found = named(db, &upstream).await?;
                    let changed = upstream::update(db, found.id, &fields.change()?).await?;
                    record(db, "set_upstream", &changed.url).await?;
                    said(&changed, "changed", json)
                }
                Self::List => list(db, json).await,
                Self::Show { upstream } => show(db, &upstream, json).await,
                Self::Remove { upstream } => {
                    let found = named(db, &upstream).await?;
                    upstream::delete(db, found.id).await?;
                    record(db, "remove_upstream", &found.url).await?;
                    print::done(json, &format!("removed {}; its events stay", found.url))
                }
                Self::Seed { file } => seed(db, &file, json).await,
            }
        })
        .await
    }
}

async fn record(db: &PgPool, action: &str, url: &str) -> anyhow::Result<()> {
    Ok(operator::record(db, &operator().who, action, url, "").await?)
}

/// By address or id.
pub(super) async fn named(db: &PgPool, name: &str) -> anyhow::Result<Upstream> {
    let found = upstream::find_named(db, name).await?;
    found.with_context(|| format!("there is no upstream {name}; see `tender upstream list`"))
}

fn said(upstream: &Upstream, what: &str, json: bool) -> anyhow::Result<()> {
    if json { print::json(upstream) } else { print::line(&format!("{what} {}", upstream.url)) }
}

async fn add(
    db: &PgPool,
    url: Option<String>,
    hosted: Option<String>,
    fields: Fields,
    json: bool,
) -> anyhow::Result<()> {
    let mut change = fields.change()?;
    change.url = url;
    if let Some(hosted) = hosted {
        let relay = super::relay::find(db, &hosted).await?;
        change.url = Some(format!("wss://{}", relay.host()));
        change.relay_id = Some(relay.id);
    }
    let created = match upstream::create(db, &change).await {
        Err(UpstreamError::Taken) => {
            bail!("that upstream is there already; `tender upstream set` changes it")
        }
        created => created?,
    };
    record(db, "add_upstream", &created.url).await?;
    said(&created, "added", json)?;
    if !json {
        print::line("the next ticks take it up; `tender sync trigger backfill` does at once")?;
    }
    Ok(())
}

async fn list(db: &PgPool, json: bool) -> anyhow::Result<()> {
    let upstreams = upstream::list(db).await?;
    if json {
        return print::json(&upstreams);
    }
    if upstreams.is_empty() {
        return print::line("no upstreams yet: `tender upstream add wss://relay.example.com`");
    }
    let mut table =
        print::table(&["URL", "", "DIRECTION", "BACKFILL", "NEGENTROPY", "LIVE", "NOTES"]);
    for one in &upstreams {
        table.add_row(vec![
            Cell::new(&one.url),
            if one.enabled { Cell::new("on").fg(Color::Green) } else { Cell::new("off") },
            one.direction.as_str().into(),
            yes(one.backfill).into(),
            negentropy_of(one).into(),
            yes(one.live).into(),
            one.notes.as_deref().unwrap_or_default().into(),
        ]);
    }
    print::line(&table.trim_fmt())
}

pub(super) fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// Whether NIP-77 is tried, and what came of it.
pub(super) fn negentropy_of(upstream: &Upstream) -> String {
    match (upstream.negentropy, upstream.negentropy_verdict.as_str()) {
        (false, _) => "no".to_owned(),
        (true, "unknown") => "yes".to_owned(),
        (true, verdict) => format!("yes ({verdict})"),
    }
}

async fn show(db: &PgPool, name: &str, json: bool) -> anyhow::Result<()> {
    let upstream = named(db, name).await?;
    let lanes = lane::states_of(db, upstream.id, 600).await?;
    if json {
        return print::json(&json!({ "upstream": upstream, "lanes": lanes }));
    }
    let now = queue::now(db).await?;
    let hosted = match upstream.relay_id.as_deref().and_then(|id| id.parse::<RelayId>().ok()) {
        Some(id) => relay::find(db, &id).await?.map(|relay| relay.host()).unwrap_or_default(),
        None => "-".to_owned(),
    };
    print::pairs(&[
        ("url", upstream.url.clone()),
        ("id", upstream.id.to_string()),
        ("enabled", yes(upstream.enabled).to_owned()),
        ("direction", upstream.direction.to_string()),
        ("backfill", yes(upstream.backfill).to_owned()),
        ("negentropy", negentropy_of(&upstream)),
        ("live", yes(upstream.live).to_owned()),
        ("hosted relay", hosted),
        ("config", upstream.config.to_string()),
        (
            "says of itself",
            upstream.information.as_ref().map_or_else(|| "-".to_owned(), Value::to_string),
        ),
        ("notes", upstream.notes.clone().unwrap_or_default()),
    ])?;
    print::line("")?;
    super::sync::print_lanes(&lanes, now)
}

async fn seed(db: &PgPool, file: &std::path::Path, json: bool) -> anyhow::Result<()> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.with_context(|| format!("failed to read {}", file.display()))?;
    let changes: Vec<Change> = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is no JSON list such as [{{\"url\": \"wss://relay.example.com\"}}]",
            file.display()
        )
    })?;
    let mut seeded = Vec::with_capacity(changes.len());
    for change in &changes {
        let url = change.url.clone().unwrap_or_default();
        match upstream::create(db, change).await {
            Ok(created) => seeded.push(("Created", created.url)),
            Err(UpstreamError::Taken) => seeded.push(("Exists", url)),
            Err(error) => {
                return Err(error).with_context(|| format!("{url} in {}", file.display()));
            }
        }
    }
    if json {
        return print::json(&seeded);
    }
    for (what, url) in &seeded {
        print::line(&format!("{what:<8} {url}"))?;
    }
    print::line(&format!("{} relays", upstream::list(db).await?.len()))
}
