//! `mirror …`: manages upstreams, their lanes and the mirrored events.

mod config;
mod events;
mod gaps;
mod lanes;
mod show;
mod status;
mod upstream;
mod wait;

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use tender_jobs::mirror::lane::LaneKind;

use super::{ask::Yes, load, migrate::check_exists, with_new_database};
use crate::config::Needs;
use upstream::Fields;
pub(super) use upstream::address;

#[derive(Debug, Subcommand)]
pub(crate) enum MirrorCommand {
    /// Add an upstream: a relay elsewhere, or one that we host.
    Add {
        /// Address of the relay, ws:// or wss://.
        #[arg(required_unless_present = "relay", conflicts_with = "relay", value_parser = upstream::address)]
        url: Option<String>,
        /// Id or host of a relay that we host, instead of an address. Its direction is down: zooid takes
        /// events from their authors only.
        #[arg(long)]
        relay: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change an upstream.
    Update {
        /// Address or id of the upstream.
        upstream: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// List upstreams.
    List,
    /// Show an upstream with its lanes.
    Show {
        /// Address or id of the upstream.
        upstream: String,
    },
    /// Remove an upstream and its lanes with their progress. Asks for confirmation. Its events are kept.
    Remove {
        /// Address or id of the upstream.
        upstream: String,
        #[command(flatten)]
        yes: Yes,
    },
    /// Add the upstreams in a file that do not exist yet. Existing upstreams do not change.
    Seed {
        /// JSON list of objects with `url` and the other fields that the API accepts.
        file: PathBuf,
    },
    /// Show lanes, events, waiting jobs, upstreams and connections.
    Status,
    /// Enqueue the work of a mode now, for one upstream or for all. Ignores cool-downs.
    Trigger {
        #[arg(value_enum, default_value = "realtime")]
        mode: ModeArg,
        /// Address or id of an upstream; without it, all upstreams.
        upstream: Option<String>,
        /// Wait until the work is done, and show its progress.
        #[arg(long)]
        wait: bool,
    },
    /// Free lanes whose holder died or whose cool-down is over, and enqueue their work.
    Recover {
        /// Seconds without a heartbeat after which a holder counts as dead (default: the setting
        /// `stale_threshold_minutes`).
        #[arg(long, value_name = "SECONDS")]
        stale: Option<u64>,
        /// Seconds after which a failed lane is freed, instead of after its cool-down.
        #[arg(long, value_name = "SECONDS")]
        error: Option<u64>,
    },
    /// Forget everything believed of one upstream, or of all: progress, gaps, verdicts, which events it
    /// holds. The lanes start from the beginning; stored events are kept. Asks for confirmation.
    Reset {
        /// Address or id of an upstream; without it, all upstreams.
        upstream: Option<String>,
        #[command(flatten)]
        yes: Yes,
    },
    /// Show the settings of the deployment, or those in effect for one upstream. `set` and `unset`
    /// change the deployment's, for every process and at once.
    #[command(args_conflicts_with_subcommands = true)]
    Config {
        #[command(subcommand)]
        change: Option<config::ConfigCommand>,
        /// Address or id of the upstream; without it, the deployment.
        upstream: Option<String>,
    },
    /// Print the ids of events that either side lacks, by negentropy. Changes nothing.
    Diff {
        /// Address or id of the upstream.
        upstream: String,
        /// Hours before now that are compared.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=175_200))]
        hours: u32,
    },
    /// Delete every stored event and all progress. Asks for confirmation.
    Wipe {
        #[command(flatten)]
        yes: Yes,
    },
    /// Apply stored deletions again in the background, at most 100,000.
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

impl MirrorCommand {
    /// Whether the command may be the first one: it adds something to an empty database.
    fn adds(&self) -> bool {
        let is_set =
            |change: &config::ConfigCommand| matches!(change, config::ConfigCommand::Set { .. });
        match self {
            Self::Add { .. } | Self::Seed { .. } => true,
            Self::Config { change: Some(change), .. } => is_set(change),
            _ => false,
        }
    }

    pub(super) async fn run(self, json: bool) -> anyhow::Result<()> {
        let config = load(Needs::Database, "warn")?;
        if !self.adds() {
            check_exists(&config)?;
        }
        with_new_database(&config, async |database| {
            let (db, private) = (&database.pool, config.api.allow_private_upstreams);
            match self {
                Self::Add { url, relay, fields } => {
                    upstream::add(db, url, relay, fields, private, json).await
                }
                Self::Update { upstream, fields } => {
                    upstream::update(db, &upstream, fields, json).await
                }
                Self::List => upstream::list(db, json).await,
                Self::Show { upstream } => show::show(db, &upstream, json).await,
                Self::Remove { upstream, yes } => upstream::remove(db, &upstream, yes, json).await,
                Self::Seed { file } => upstream::seed(db, &file, private, json).await,
                Self::Status => status::print(db, json).await,
                Self::Trigger { mode, upstream, wait } => {
                    let upstream = upstream.as_deref();
                    lanes::trigger(db, mode.into(), upstream, wait, json).await
                }
                Self::Recover { stale, error } => lanes::recover(db, stale, error, json).await,
                Self::Reset { upstream, yes } => {
                    lanes::reset(db, upstream.as_deref(), yes, json).await
                }
                Self::Config { change: Some(change), .. } => config::change(db, change, json).await,
                Self::Config { change: None, upstream } => {
                    config::show(db, upstream.as_deref(), json).await
                }
                Self::Diff { upstream, hours } => {
                    events::diff(db, &config, &upstream, hours, json).await
                }
                Self::Wipe { yes } => events::wipe(db, yes, json).await,
                Self::Redelete => events::redelete(db, json).await,
            }
        })
        .await
    }
}
