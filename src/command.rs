//! What can be typed: one file per group of commands. Each parses, calls down once, prints.

mod doctor;
mod fleet;
mod keys;
mod print;
mod queue;
mod relay;
mod serve;
mod sync;
mod top;
mod upstream;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use nostr::key::Keys;
pub(crate) use serve::on_signal;
use tender_jobs::{database, relay::By};

use crate::{
    config::{Config, Needs},
    demo,
    postgres::Database,
    telemetry,
};

/// Tender keeps Nostr relays in step: what tenants want reaches zooid through durable jobs in
/// PostgreSQL, whatever dies in between.
#[derive(Debug, Parser)]
#[command(name = "tender", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Configuration is read from the environment and from a file .env; .env.example lists every variable.
Without DATABASE_URL a private PostgreSQL is made and started under TENDER_DATA_DIR (.tender).
Exit code: 0 done, 1 failed, 2 wrong usage.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process: API, workers, schedule.
    Serve,
    /// Run the HTTP API.
    Api,
    /// Run workers; as many processes as you like on one database.
    Work {
        /// Serve only this queue (sync-relay, reconcile, prune, resync, sync, events, uploads, deletions),
        /// with so many jobs at a time; may be repeated.
        #[arg(long = "queue", value_name = "NAME[=JOBS]")]
        queues: Vec<String>,
        /// Syncs at the same time in this process (default: `RELAY_SYNC_CONCURRENCY`).
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
        concurrency: Option<u16>,
    },
    /// Bring the database up to date.
    Migrate,
    /// Watch a dozen relays reach a stand-in for zooid, some of them over failures. Needs nothing
    /// set up.
    Demo {
        /// End as soon as all are synced, with exit code 0.
        #[arg(long)]
        once: bool,
    },
    /// Check configuration, database, zooid and workers; say what to do.
    Doctor,
    /// Look at relays and change them.
    #[command(subcommand)]
    Relay(relay::RelayCommand),
    /// Look at the queue and steer it.
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Keep events in step with other relays: states, triggers, what differs.
    #[command(subcommand)]
    Sync(sync::SyncCommand),
    /// The relays that events are kept in step with.
    #[command(subcommand)]
    Upstream(upstream::UpstreamCommand),
    /// Keys of event sync's API.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Enqueue every pending relay that has no job, now.
    Reconcile,
    /// Show who is alive and what it runs.
    Workers,
    /// Show each recurring job: its last run and its next.
    Schedule,
    /// Watch the fleet in the terminal, live. Ends with q.
    Top,
    /// Print a link that lets into the dashboard once, within ten minutes.
    DashboardLink {
        /// End every session of the dashboard instead.
        #[arg(long)]
        end_sessions: bool,
    },
    /// Print the API's OpenAPI document.
    Openapi,
    /// Make a new robot key: prints `ROBOT_SECRET`, and the public key for zooid's `API_WHITELIST`.
    Keygen,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed, for people.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        // TLS for the database and for zooid; refused only when it is set already.
        let _set_already = rustls::crypto::ring::default_provider().install_default();
        let json = self.json;
        match self.command {
            Command::Serve => serve::serve(load(Needs::Zooid, "info")?).await?,
            Command::Api => serve::api(load(Needs::Api, "info")?).await?,
            Command::Work { queues, concurrency } => {
                let queues = queues.iter().map(|text| serve::served_queue(text));
                let queues = queues.collect::<anyhow::Result<_>>()?;
                serve::work(load(Needs::Zooid, "info")?, queues, concurrency).await?;
            }
            Command::Migrate => migrate(&load(Needs::Database, "info")?, json).await?,
            Command::Demo { once } => demo::run(&load(Needs::Database, "error")?, once).await?,
            Command::Doctor => return doctor::run(json).await,
            Command::Relay(command) => command.run(json).await?,
            Command::Queue(command) => command.run(json).await?,
            Command::Sync(command) => Box::pin(command.run(json)).await?,
            Command::Upstream(command) => Box::pin(command.run(json)).await?,
            Command::Keys(command) => command.run(json).await?,
            Command::Reconcile => reconcile(json).await?,
            Command::Workers => fleet::workers(json).await?,
            Command::Schedule => fleet::schedule(json).await?,
            Command::Top => top::run(json).await?,
            Command::DashboardLink { end_sessions: false } => fleet::dashboard_link(json).await?,
            Command::DashboardLink { end_sessions: true } => fleet::end_sessions(json).await?,
            Command::Openapi => print::json(&crate::http::openapi_document())?,
            Command::Keygen => keygen(json)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn load(needs: Needs, default_level: &str) -> anyhow::Result<Config> {
    let config = Config::load(needs)?;
    telemetry::init(&config.log, default_level);
    Ok(config)
}

/// Who an operator on the command line is, in activity.
fn operator() -> By {
    By { who: "operator".to_owned(), trace: None }
}

/// Opens the database and brings it up to date if it is not. A role without the right to change the
/// schema is enough once it is.
async fn open(config: &Config) -> anyhow::Result<Database> {
    let database = Database::open(&config.database).await?;
    let is_migrated = database::is_migrated(&database.pool).await;
    if !is_migrated.map_err(explain).context("failed to read the schema's version")? {
        database::migrate(&database.pool).await?;
    }
    Ok(database)
}

/// A database's first refusal, with what to do where its words do not say it.
fn explain(error: sqlx::Error) -> anyhow::Error {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // A statement of that name is there already, or not there at all.
    if matches!(code.as_deref(), Some("42P05" | "26000")) {
        return anyhow::Error::new(error).context(
            "a pooler in transaction mode is in between that does not keep prepared statements: use \
             PgBouncer 1.21 or newer with max_prepared_statements, or session mode",
        );
    }
    error.into()
}

/// Opens the database for one command, and closes it whatever the command came to.
async fn with_database<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Database) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let database = open(config).await?;
    let result = work(&database).await;
    database.close().await;
    result
}

async fn migrate(config: &Config, json: bool) -> anyhow::Result<()> {
    with_database(config, async |_database| print::done(json, "the database is up to date")).await
}

/// In the form of a `.env` file.
fn keygen(json: bool) -> anyhow::Result<()> {
    let keys = Keys::generate();
    let (secret, public) = (keys.secret_key().to_secret_hex(), keys.public_key().to_hex());
    if json {
        let keys = serde_json::json!({ "robot_secret": secret, "robot_pubkey": public });
        return print::json(&keys);
    }
    print::line(&format!("ROBOT_SECRET={secret}\nROBOT_PUBKEY={public}"))
}

async fn reconcile(json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "warn")?;
    with_database(&config, async |database| {
        let rest = config.work.exhausted_after;
        let enqueued = tender_workers::reconcile::reconcile(&database.pool, rest).await?;
        if json {
            return print::json(&serde_json::json!({ "enqueued": enqueued }));
        }
        print::line(&format!("enqueued {enqueued} pending relays that had no job"))
    })
    .await
}
