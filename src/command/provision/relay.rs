//! `relay …`: shows and changes relays.

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use nostr::key::PublicKey;
use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    provision::{
        MAX_RATE,
        activity::{self, Activity},
        relay::{
            self, Change, FieldError, Filter, Flags, NewRelay, Relay, RelayId, Status, SyncState,
        },
        start_resync,
    },
    queue,
};
use tender_workers::provision::zooid::Zooid;

use crate::command::{load, operator, print, with_database};
use crate::{
    config::{Config, Needs},
    postgres::Database,
};

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

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only relays with this status.
    #[arg(long, value_enum)]
    status: Option<StatusArg>,
    /// Only relays in this sync state.
    #[arg(long, value_enum)]
    sync: Option<SyncArg>,
    /// Only relays whose host or name contains this, or whose id or tenant starts with it.
    #[arg(long, short)]
    query: Option<String>,
    /// Maximum number of relays to show.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StatusArg {
    Active,
    Inactive,
    Delinquent,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SyncArg {
    Synced,
    Pending,
    Retrying,
    GaveUp,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Domain of the relay's host, after the first label (default for a new relay: `RELAY_DOMAIN`).
    #[arg(long)]
    domain: Option<String>,
    /// Id of the billing plan.
    #[arg(long)]
    plan: Option<String>,
    /// Name that clients display.
    #[arg(long)]
    name: Option<String>,
    /// URL of the icon.
    #[arg(long)]
    icon: Option<String>,
    /// Description that clients display.
    #[arg(long)]
    description: Option<String>,
    /// Custom domain of the relay, such as relay.example.com.
    #[arg(long)]
    custom_domain: Option<String>,
    /// Switch a feature on; may be repeated.
    #[arg(long, value_name = "FLAG", value_parser = Flags::NAMES)]
    on: Vec<String>,
    /// Switch a feature off; may be repeated.
    #[arg(long, value_name = "FLAG", value_parser = Flags::NAMES)]
    off: Vec<String>,
}

impl ChangeArgs {
    fn into_change(self, subdomain: Option<String>) -> Change {
        let named = |names: Vec<String>, on: bool| {
            Flags::NAMES
                .into_iter()
                .filter(move |name| names.iter().any(|n| n == name))
                .map(move |name| (name, on))
        };
        Change {
            subdomain,
            zooid_domain: self.domain,
            plan_id: self.plan,
            info_name: self.name,
            info_icon: self.icon,
            info_description: self.description,
            custom_domain: self.custom_domain,
            flags: named(self.on, true).chain(named(self.off, false)).collect(),
        }
    }
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
        let relay = match self {
            Self::List(args) => return list(config, database, args, json).await,
            Self::Show { relay } => return show(config, database, &relay, json).await,
            Self::Members { relay } => return members(config, database, &relay, json).await,
            Self::Activity { relay, limit } => {
                return show_activity(database, &relay, limit.into(), json).await;
            }
            Self::Create { subdomain, tenant, change } => {
                let tenant =
                    PublicKey::parse(&tenant).context("--tenant is not a valid public key")?;
                let change = change.into_change(Some(subdomain));
                let (domain, domains) = (&config.api.relay_domain, &config.api.domains);
                let new = NewRelay::parse(tenant.to_hex(), &change, domain, domains);
                relay::create(db, &new.map_err(|problems| invalid(&problems))?, &by).await?
            }
            Self::Update { relay, subdomain, change } => {
                let found = find(&database.pool, &relay).await?;
                let change = change.into_change(subdomain);
                let mut domains = config.api.domains.clone();
                domains.push(found.zooid_domain);
                let problems = change.problems(&domains);
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
            Self::Sync { relay: None, rate, .. } => return sync_all(database, rate, json).await,
            Self::Sync { relay: Some(relay), .. } => {
                let id = find(&database.pool, &relay).await?.id;
                relay::request_sync(db, &id, &by).await?
            }
        };
        print_relay(database, config, &relay, json).await
    }
}

/// Starts the resync of every relay, which then runs in the background.
async fn sync_all(database: &Database, rate: u32, json: bool) -> anyhow::Result<()> {
    let db = &database.pool;
    let is_started = start_resync(db, rate, &operator()).await?;
    let words = if is_started {
        format!(
            "started the resync of every relay, at most {rate} per second; `tender queue list \
             --queue resync` shows its job, `tender queue cancel` stops it"
        )
    } else {
        "a resync of every relay is already running; see `tender queue list --queue resync`"
            .to_owned()
    };
    tender_jobs::console::operator::record(db, &operator().who, "sync_all", "", &words).await?;
    print::done(json, &words)
}

/// Finds a relay by its id or its whole host.
pub(in crate::command) async fn find(db: &PgPool, text: &str) -> anyhow::Result<Relay> {
    let found = if let Ok(id) = text.parse::<RelayId>() {
        relay::find(db, &id).await?
    } else {
        let filter = Filter { query: Some(text.to_owned()), ..Filter::default() };
        let likely = relay::list(db, &filter, 1000).await?;
        likely.into_iter().find(|relay| relay.host() == text)
    };
    found.with_context(|| {
        format!(
            "there is no relay {text}: give its id or whole host; `tender relay list` shows both"
        )
    })
}

async fn list(
    config: &Config,
    database: &Database,
    args: ListArgs,
    json: bool,
) -> anyhow::Result<()> {
    let filter = Filter {
        status: args.status.map(|status| match status {
            StatusArg::Active => Status::Active,
            StatusArg::Inactive => Status::Inactive,
            StatusArg::Delinquent => Status::Delinquent,
        }),
        sync: args.sync.map(|sync| match sync {
            SyncArg::Synced => SyncState::Synced,
            SyncArg::Pending => SyncState::Pending,
            SyncArg::Retrying => SyncState::Retrying,
            SyncArg::GaveUp => SyncState::GaveUp,
        }),
        query: args.query,
        after: None,
    };
    let relays = relay::list(&database.pool, &filter, args.limit.into()).await?;
    let max = config.provision.backoff.max_attempts();
    if json {
        return print::json(&relays.iter().map(|relay| view(relay, max)).collect::<Vec<_>>());
    }
    if relays.is_empty() {
        return print::line("no relays");
    }
    let now = queue::now(&database.pool).await?;
    let mut table =
        print::table(&["HOST", "STATUS", "SYNC", "ATTEMPT", "NEXT TRY", "LAST ERROR", "ID"]);
    for relay in &relays {
        table.add_row(vec![
            relay.host().into(),
            relay.status.as_str().into(),
            print::sync_cell(relay),
            print::attempts(relay, max).into(),
            next_try(relay, now).into(),
            print::short(&relay.sync_error, 60).into(),
            relay.id.as_str().into(),
        ]);
    }
    print::line(&table.trim_fmt())
}

fn next_try(relay: &Relay, now: DateTime<Utc>) -> String {
    match (relay.sync_state(), relay.retry_at) {
        (SyncState::Synced, _) => "-".to_owned(),
        (SyncState::GaveUp, _) => "none: run `tender relay sync`".to_owned(),
        (_, Some(at)) => print::relative(at.max(now), now),
        (_, None) => "now".to_owned(),
    }
}

/// Returns the fields of a relay, with its host, its sync state and its maximum of attempts.
fn view(relay: &Relay, max_attempts: u32) -> Value {
    let mut view = json!(relay);
    view["host"] = json!(relay.host());
    view["sync_state"] = json!(relay.sync_state());
    view["max_attempts"] = json!(max_attempts);
    view
}

async fn print_relay(
    database: &Database,
    config: &Config,
    relay: &Relay,
    json: bool,
) -> anyhow::Result<()> {
    let max = config.provision.backoff.max_attempts();
    if json {
        return print::json(&view(relay, max));
    }
    let now = queue::now(&database.pool).await?;
    let ago =
        |at: DateTime<Utc>| format!("{} ({})", print::relative(at, now), at.format("%F %T UTC"));
    let on: Vec<_> = relay.flags.named().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    print::pairs(&[
        ("host", relay.host()),
        ("id", relay.id.to_string()),
        ("tenant", relay.tenant_pubkey.clone()),
        ("status", relay.status.as_str().to_owned()),
        ("sync", relay.sync_state().as_str().replace('_', " ")),
        ("attempt", print::attempts(relay, max)),
        ("next try", next_try(relay, now)),
        ("last error", relay.sync_error.clone()),
        (
            "generation",
            format!("{} wanted, {} on zooid", relay.generation, relay.synced_generation),
        ),
        ("first synced", relay.provisioned_at.map_or_else(|| "never".to_owned(), ago)),
        ("schema", relay.schema.clone()),
        ("plan", relay.plan_id.clone()),
        ("name", relay.info_name.clone()),
        ("icon", relay.info_icon.clone()),
        ("description", print::short(&relay.info_description, 200)),
        ("custom domain", relay.custom_domain.clone()),
        ("switched on", on.join(", ")),
        ("created", ago(relay.created_at)),
        ("changed", ago(relay.updated_at)),
    ])
}

async fn show(config: &Config, database: &Database, text: &str, json: bool) -> anyhow::Result<()> {
    let relay = find(&database.pool, text).await?;
    let records = activity::of_relay(&database.pool, &relay.id, None, 10).await?;
    if json {
        let mut view = view(&relay, config.provision.backoff.max_attempts());
        view["activity"] = json!(records);
        return print::json(&view);
    }
    print_relay(database, config, &relay, false).await?;
    print::line("")?;
    print::line(&activity_table(&records))
}

async fn show_activity(
    database: &Database,
    text: &str,
    limit: i64,
    json: bool,
) -> anyhow::Result<()> {
    let relay = find(&database.pool, text).await?;
    let records = activity::of_relay(&database.pool, &relay.id, None, limit).await?;
    if json { print::json(&records) } else { print::line(&activity_table(&records)) }
}

fn activity_table(records: &[Activity]) -> String {
    let mut table = print::table(&["WHEN", "WHAT", "ATTEMPT", "MS", "DETAIL"]);
    for record in records {
        let text = |name: &str| match &record.detail[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let detail =
            ["error", "note", "changed", "by"].map(text).into_iter().find(|text| !text.is_empty());
        table.add_row(vec![
            record.created_at.format("%F %T").to_string(),
            record.activity_type.as_str().replace('_', " "),
            text("attempt"),
            text("duration_ms"),
            print::short(&detail.unwrap_or_default(), 100),
        ]);
    }
    table.trim_fmt()
}

async fn members(
    config: &Config,
    database: &Database,
    text: &str,
    json: bool,
) -> anyhow::Result<()> {
    let relay = find(&database.pool, text).await?;
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
