//! `relay …`: shows and changes relays.

mod arguments;
mod view;

use anyhow::{Context, bail};
use clap::Subcommand;
use nostr::key::PublicKey;
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    console::operator as audit,
    provision::{
        MAX_RATE, RESYNC, activity,
        relay::{self, FieldError, Filter, NewRelay, Relay, RelayId, Status},
        start_resync,
    },
    queue,
};
use tender_workers::provision::zooid::Zooid;

use crate::command::{load, operator, print, with_database};
use crate::{
    config::{Config, Needs},
    postgres::Database,
    search,
};
use arguments::{ChangeArgs, ListArgs};

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
        #[arg(long)]
        tenant: String,
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
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
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
        with_database(&config, async |database| self.run_on(&config, database, json).await).await
    }

    async fn run_on(self, config: &Config, database: &Database, json: bool) -> anyhow::Result<()> {
        let db = &database.pool;
        let by = operator();
        let action = self.action();
        let relay = match self {
            Self::List(args) => return list(config, database, &args, json).await,
            Self::Show { relay } => return show(config, database, &relay, json).await,
            Self::Members { relay } => return members(config, database, &relay, json).await,
            Self::Activity { relay, limit } => {
                return show_activity(database, &relay, limit.into(), json).await;
            }
            Self::Create { subdomain, tenant, change } => {
                let tenant =
                    PublicKey::parse(&tenant).context("--tenant is not a valid public key")?;
                tenant.xonly().context("--tenant is not a public key: no secret key has it")?;
                let change = change.into_change(Some(subdomain))?;
                let (domain, domains) = (&config.api.relay_domain, &config.api.domains);
                let new = NewRelay::parse(tenant.to_hex(), &change, domain, domains);
                relay::create(db, &new.map_err(|problems| invalid(&problems))?, &by).await?
            }
            Self::Update { relay, subdomain, change } => {
                let found = find(&database.pool, &relay).await?;
                let change = change.into_change(subdomain)?;
                let problems =
                    change.problems_for(&found, &config.api.domains, &config.api.instances);
                if !problems.is_empty() {
                    return Err(invalid(&problems));
                }
                relay::update(db, &found.id, &change, &by).await?.relay
            }
            Self::Activate { relay } => {
                let id = find(&database.pool, &relay).await?.id;
                relay::set_status(db, &id, Status::Active, &by).await?.relay
            }
            Self::Deactivate { relay, delinquent } => {
                let id = find(&database.pool, &relay).await?.id;
                let status = if delinquent { Status::Delinquent } else { Status::Inactive };
                relay::set_status(db, &id, status, &by).await?.relay
            }
            Self::Delete { relay, yes } => {
                let found = find(db, &relay).await?;
                let question =
                    format!("Delete {} for good? Its events on zooid are lost.", found.host());
                print::confirmed(yes, &question).await?;
                relay::delete(db, &found.id, &by).await?.relay
            }
            Self::Sync { relay: None, rate, .. } => return sync_all(database, rate, json).await,
            Self::Sync { relay: Some(relay), .. } => {
                let id = find(&database.pool, &relay).await?.id;
                relay::request_sync(db, &id, &by).await?
            }
        };
        record(db, action, &relay.host(), "the change is on its way to zooid").await?;
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

/// Starts the resync of every relay, which then runs in the background.
async fn sync_all(database: &Database, rate: u32, json: bool) -> anyhow::Result<()> {
    let db = &database.pool;
    let is_started = start_resync(db, rate, &operator()).await?;
    let mut words = if is_started {
        format!(
            "started the resync of every relay, at most {rate} per second; `tender queue list \
             --queue resync` shows its job, `tender queue cancel` stops it"
        )
    } else {
        "a resync of every relay is already running; see `tender queue list --queue resync`"
            .to_owned()
    };
    let workers = queue::workers(db).await?;
    if !workers.iter().any(|worker| worker.is_alive && worker.queue == RESYNC) {
        words.push_str(
            "; it waits, because no worker of the queue resync is running: start `tender work` or \
             `tender serve` with ZOOID_API_URL",
        );
    }
    record(db, "sync_all", "", &words).await?;
    print::done(json, &words)
}

/// Records an operator's action in the audit log.
async fn record(db: &PgPool, action: &str, target: &str, result: &str) -> anyhow::Result<()> {
    Ok(audit::record(db, &operator().who, action, target, result).await?)
}

/// Finds a relay to change: by its id, or by its whole host, with or without a scheme. A part of a name is not
/// enough, but the error lists the relays that it names.
pub(in crate::command) async fn find(db: &PgPool, text: &str) -> anyhow::Result<Relay> {
    match exact(db, text).await? {
        Some(found) => Ok(found),
        None => bail!(unknown(text, &named(db, text).await?)),
    }
}

/// Finds a relay to show: as [`find`], or by what names only this one: a part of its host or name, or the key of a
/// tenant that has no other.
async fn find_part(db: &PgPool, text: &str) -> anyhow::Result<Relay> {
    if let Some(found) = exact(db, text).await? {
        return Ok(found);
    }
    let mut named = named(db, text).await?;
    match named.len() {
        1 => Ok(named.remove(0)),
        _ => bail!(unknown(text, &named)),
    }
}

async fn exact(db: &PgPool, text: &str) -> anyhow::Result<Option<Relay>> {
    let Some(name) = search::normal(text) else { return Ok(None) };
    Ok(match name.parse::<RelayId>() {
        Ok(id) => relay::find(db, &id).await?,
        Err(_) => relay::find_by_host(db, &name.to_lowercase()).await?,
    })
}

/// Returns some relays that a text names, as the dashboard's search finds them.
async fn named(db: &PgPool, text: &str) -> anyhow::Result<Vec<Relay>> {
    let Some(query) = search::normal(text) else { return Ok(Vec::new()) };
    let filter = Filter { query: Some(query), ..Filter::default() };
    Ok(relay::list(db, &filter, 5).await?)
}

fn unknown(text: &str, named: &[Relay]) -> String {
    let hosts: Vec<String> = named.iter().map(Relay::host).collect();
    let hint = match hosts.as_slice() {
        [] => "`tender relay list` shows both".to_owned(),
        hosts => format!("{text} is a part of {}", hosts.join(", ")),
    };
    format!("there is no relay {text}: give its id or whole host; {hint}")
}

async fn list(
    config: &Config,
    database: &Database,
    args: &ListArgs,
    json: bool,
) -> anyhow::Result<()> {
    let relays = relay::list(&database.pool, &args.filter(), args.limit.into()).await?;
    let max = config.provision.backoff.max_attempts();
    if json {
        return print::json(
            &relays.iter().map(|relay| view::fields(relay, max)).collect::<Vec<_>>(),
        );
    }
    if relays.is_empty() {
        return print::line("no relays");
    }
    let now = queue::now(&database.pool).await?;
    print::line(&view::relay_table(&relays, max, now))
}

async fn show(config: &Config, database: &Database, text: &str, json: bool) -> anyhow::Result<()> {
    let relay = find_part(&database.pool, text).await?;
    let records = activity::of_relay(&database.pool, &relay.id, None, 10).await?;
    if json {
        let mut view = view::fields(&relay, config.provision.backoff.max_attempts());
        view["activity"] = json!(records);
        return print::json(&view);
    }
    view::print(database, config, &relay, false).await?;
    print::line("")?;
    print::line(&view::activity_table(&records))
}

async fn show_activity(
    database: &Database,
    text: &str,
    limit: i64,
    json: bool,
) -> anyhow::Result<()> {
    // The activity outlives its relay.
    let id = match text.parse::<RelayId>() {
        Ok(id) => id,
        Err(_) => find_part(&database.pool, text).await?.id,
    };
    let records = activity::of_relay(&database.pool, &id, None, limit).await?;
    if records.is_empty() {
        bail!("there is no relay {text}, and there was none: give its id or whole host");
    }
    if json { print::json(&records) } else { print::line(&view::activity_table(&records)) }
}

async fn members(
    config: &Config,
    database: &Database,
    text: &str,
    json: bool,
) -> anyhow::Result<()> {
    let relay = find_part(&database.pool, text).await?;
    let Some(settings) = config.zooid.clone() else { bail!("zooid is not configured") };
    let members = Zooid::new(settings)?.members(&relay).await?;
    if json {
        return print::json(&json!({ "members": members }));
    }
    members.iter().try_for_each(|member| print::line(member))
}

fn invalid(problems: &[FieldError]) -> anyhow::Error {
    let each = problems.iter().map(|problem| format!("{} {}", problem.field, problem.problem));
    anyhow::anyhow!("{}", each.collect::<Vec<_>>().join("; "))
}
