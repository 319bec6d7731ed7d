//! `grasp …`: services that host git repositories, the relays that they follow, and what is missing.

mod change;
mod explain;
mod missing;
mod parked;
mod relay;
mod repo;
mod repos;
mod service;
mod status;

use clap::Subcommand;

use super::{ask::Yes, load, migrate::check_exists, mirror::address, with_new_database};
use crate::config::Needs;

#[derive(Debug, Subcommand)]
pub(crate) enum GraspCommand {
    /// Add a service: a relay of yours that hosts git repositories.
    Add {
        /// Address of its relay, ws:// or wss://.
        #[arg(value_parser = address)]
        url: String,
        #[command(flatten)]
        fields: change::Fields,
    },
    /// Change a service. Names and bootstrap relays replace the former ones.
    Update {
        /// Address, id or host of the service.
        service: String,
        #[command(flatten)]
        fields: change::Fields,
        /// Start from no relay any more.
        #[arg(long, conflicts_with = "bootstrap")]
        no_bootstrap: bool,
    },
    /// Remove a service with its repositories' coverage. Asks for confirmation. Its events are kept.
    Remove {
        /// Address, id or host of the service.
        service: String,
        #[command(flatten)]
        yes: Yes,
    },
    /// List services.
    List,
    /// Show a service.
    Show {
        /// Address, id or host of the service.
        service: String,
    },
    /// List repositories with their coverage.
    Repos(repos::List),
    /// Show a repository: its relays, its roots, what is missing and why.
    Repo {
        /// Address of the repository, 30617:PUBKEY:IDENTIFIER, or its identifier if no other repository has it.
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
    /// Say whether each service would admit an event, by which rule or why not, and what it waits for.
    Explain {
        /// The event as JSON, a file with it, `-` for standard input, or the id of a stored or parked event.
        event: String,
    },
    /// Print the filters that a followed relay would be asked for now, without asking.
    Plan {
        /// Address or id of the relay.
        relay: String,
    },
    /// Count parked events by reason, or list those of one reason.
    Parked(parked::List),
    /// Show sums: services, followed relays by state, coverage, parked events.
    Status,
}

impl GraspCommand {
    pub(super) async fn run(self, json: bool) -> anyhow::Result<()> {
        let config = load(Needs::Database, "warn")?;
        if !matches!(self, Self::Add { .. }) {
            check_exists(&config)?;
        }
        with_new_database(&config, async |database| {
            let db = &database.pool;
            let allows_private = config.api.allow_private_upstreams;
            match self {
                Self::Add { url, fields } => {
                    change::add(db, url, fields, allows_private, json).await
                }
                Self::Update { service, fields, no_bootstrap } => {
                    change::update(db, &service, fields, no_bootstrap, allows_private, json).await
                }
                Self::Remove { service, yes } => change::remove(db, &service, yes, json).await,
                Self::List => service::list(db, json).await,
                Self::Show { service } => service::show(db, &service, json).await,
                Self::Repos(list) => repos::list(db, list, json).await,
                Self::Repo { address } => repo::show(db, &address, json).await,
                Self::Relays(list) => relay::list(db, list, json).await,
                Self::Relay { relay } => relay::show(db, &relay, json).await,
                Self::Resync { url, all: _ } => relay::resync(db, url.as_deref(), json).await,
                Self::Explain { event } => explain::explain(db, &event, json).await,
                Self::Plan { relay } => missing::plan(db, &relay, json).await,
                Self::Parked(list) => parked::list(db, list, json).await,
                Self::Status => status::print(db, json).await,
            }
        })
        .await
    }
}
