//! `grasp …`: services that host git repositories, the relays that they follow, and what is missing.

mod parked;
mod relay;
mod repo;
mod service;
mod status;

use clap::Subcommand;

use super::{load, with_database};
use crate::config::Needs;

#[derive(Debug, Subcommand)]
pub(crate) enum GraspCommand {
    /// List services.
    List,
    /// Show a service.
    Show {
        /// Address or id of the service.
        service: String,
    },
    /// List repositories with their coverage.
    Repos(repo::List),
    /// Show a repository: its relays, its roots, what is missing and why.
    Repo {
        /// Address of the repository: 30617:PUBKEY:IDENTIFIER.
        address: String,
    },
    /// List the followed relays.
    Relays(relay::List),
    /// Show a followed relay: coverage, batches, what is missing and why.
    Relay {
        /// Address or id of the relay.
        relay: String,
    },
    /// Verify everything that a followed relay has delivered, now instead of at the daily time.
    Resync {
        /// Address of the relay.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        url: Option<String>,
        /// All followed relays.
        #[arg(long)]
        all: bool,
    },
    /// Count parked events by reason, or list those of one reason.
    Parked(parked::List),
    /// Show sums: services, followed relays by state, coverage, parked events.
    Status,
}

impl GraspCommand {
    pub(super) async fn run(self, json: bool) -> anyhow::Result<()> {
        let config = load(Needs::Database, "warn")?;
        with_database(&config, async |database| {
            let db = &database.pool;
            match self {
                Self::List => service::list(db, json).await,
                Self::Show { service } => service::show(db, &service, json).await,
                Self::Repos(list) => repo::list(db, list, json).await,
                Self::Repo { address } => repo::show(db, &address, json).await,
                Self::Relays(list) => relay::list(db, list, json).await,
                Self::Relay { relay } => relay::show(db, &relay, json).await,
                Self::Resync { url, all: _ } => relay::resync(db, url.as_deref(), json).await,
                Self::Parked(list) => parked::list(db, list, json).await,
                Self::Status => status::print(db, json).await,
            }
        })
        .await
    }
}
