//! `relay …`: shows and changes relays.

mod arguments;
mod change;
mod find;
mod read;
mod sync_all;
mod view;

use clap::Subcommand;
use nostr::key::PublicKey;
use tender_jobs::provision::{MAX_RATE, relay::Status};

use crate::{
    command::{ask::Yes, load, with_database, with_new_database},
    config::{Config, Needs},
    postgres::Database,
};
use arguments::{ChangeArgs, ListArgs, tenant};
pub(in crate::command) use find::find;

#[derive(Debug, Subcommand)]
pub(crate) enum RelayCommand {
    /// List relays, newest first, with their state, attempts, next attempt and last error.
    List(ListArgs),
    /// Show a relay with its latest activity.
    Show {
        /// Id or host of the relay.
        relay: String,
    },
    /// Create a relay.
    Create {
        /// First label of the relay's host.
        subdomain: String,
        /// Public key of the owner, in hex or as npub.
        #[arg(long, value_parser = tenant)]
        tenant: PublicKey,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Change a relay.
    Update {
        /// Id or host of the relay.
        relay: String,
        /// New first label of the relay's host.
        #[arg(long)]
        subdomain: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Switch a relay on.
    Activate {
        /// Id or host of the relay.
        relay: String,
    },
    /// Switch a relay off.
    Deactivate {
        /// Id or host of the relay.
        relay: String,
        /// Mark the relay as delinquent: its tenant cannot switch it on.
        #[arg(long)]
        delinquent: bool,
    },
    /// Delete a relay: on zooid first, and then here. Asks for confirmation. Its history is kept.
    Delete {
        /// Id or host of the relay.
        relay: String,
        #[command(flatten)]
        yes: Yes,
    },
    /// Send a relay to zooid again now, even if it gave up; or all relays, in the background.
    Sync {
        /// Id or host of the relay.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        relay: Option<String>,
        /// Send every relay, a few at a time; `tender queue cancel` stops it.
        #[arg(long)]
        all: bool,
        /// Maximum number of relays per second.
        #[arg(long, default_value_t = 50, requires = "all",
              value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RATE)))]
        rate: u32,
    },
    /// List a relay's members, as zooid reports them.
    Members {
        /// Id or host of the relay.
        relay: String,
    },
    /// Show a relay's changes and the outcomes of its attempts, newest first.
    Activity {
        /// Id or host of the relay.
        relay: String,
        /// Maximum number of records to show.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
    },
}

impl RelayCommand {
    pub(in crate::command) async fn run(self, json: bool) -> anyhow::Result<()> {
        let needs = match self {
            Self::Create { .. } => Needs::Relays,
            Self::Members { .. } => Needs::Zooid,
            _ => Needs::Database,
        };
        let config = load(needs, "warn")?;
        if matches!(self, Self::Create { .. }) {
            let created = async |database: &Database| self.run_on(&config, database, json).await;
            return with_new_database(&config, created).await;
        }
        with_database(&config, async |database| self.run_on(&config, database, json).await).await
    }

    async fn run_on(self, config: &Config, database: &Database, json: bool) -> anyhow::Result<()> {
        let (db, api) = (&database.pool, &config.api);
        let action = self.action();
        let relay = match self {
            Self::List(args) => return read::list(config, database, &args, json).await,
            Self::Show { relay } => return read::show(config, database, &relay, json).await,
            Self::Members { relay } => return read::members(config, database, &relay, json).await,
            Self::Activity { relay, limit } => {
                return read::show_activity(database, &relay, limit.into(), json).await;
            }
            Self::Sync { relay: None, rate, .. } => {
                return sync_all::sync_all(db, rate, json).await;
            }
            Self::Create { subdomain, tenant, change } => {
                change::create(db, action, api, subdomain, tenant, change).await?
            }
            Self::Update { relay, subdomain, change } => {
                change::update(db, action, api, &relay, subdomain, change).await?
            }
            Self::Activate { relay } => {
                change::set_status(db, action, &relay, Status::Active).await?
            }
            Self::Deactivate { relay, delinquent } => {
                let status = if delinquent { Status::Delinquent } else { Status::Inactive };
                change::set_status(db, action, &relay, status).await?
            }
            Self::Delete { relay, yes } => change::delete(db, action, &relay, yes).await?,
            Self::Sync { relay: Some(relay), .. } => change::sync(db, action, &relay).await?,
        };
        view::print(database, config, &relay, json).await
    }

    /// The name of the action in the audit log, as the dashboard's actions have it.
    pub(in crate::command) fn action(&self) -> &'static str {
        match self {
            Self::Create { .. } => "relay_create",
            Self::Update { .. } => "relay_update",
            Self::Activate { .. } => "relay_activate",
            Self::Deactivate { delinquent: true, .. } => "relay_delinquent",
            Self::Deactivate { delinquent: false, .. } => "relay_deactivate",
            Self::Delete { .. } => "relay_delete",
            Self::Sync { .. } => "relay_sync",
            Self::List(_) | Self::Show { .. } | Self::Members { .. } | Self::Activity { .. } => {
                "relay_read"
            }
        }
    }
}
