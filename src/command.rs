//! The command line: one file or folder per group of commands. Each parses, makes one call into the
//! ledger or the workers, and prints the result.

mod ask;
mod audit;
mod doctor;
mod failure;
mod flags;
mod fleet;
mod grasp;
mod keys;
mod manual;
mod migrate;
mod mirror;
mod print;
mod process;
mod provision;
mod queue;
mod serve;
mod status;
mod top;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use nostr::key::Keys;
use tender_jobs::{console::operator as actions, provision::relay::By};

pub use failure::{exit_code, words};

use crate::{
    config::{Config, LogConfig, Needs, env_file},
    demo,
    postgres::Database,
    telemetry,
};

/// Tender keeps Nostr relays in step through durable jobs in PostgreSQL: tenants' relays reach
/// zooid, events are mirrored between relays, and relays that host git repositories receive the events of
/// these, even if processes die midway.
#[derive(Debug, Parser)]
#[command(name = "tender", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    flags: flags::Flags,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Configuration is read from the environment and from the file .env; .env.example lists every variable.
Without DATABASE_URL, `serve` and the commands that add something create a private PostgreSQL under
TENDER_DATA_DIR (.tender). Every command starts it for as long as it runs.
Exit code: 0 done; 1 failed, or not done; 2 wrong usage.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process: API, workers, schedule.
    Serve,
    /// Run the HTTP API.
    Api,
    /// Run workers. Any number of processes can share one database.
    Work {
        /// Serve only this queue, optionally with a number of jobs at the same time; may be
        /// repeated. Queues: sync-relay, reconcile, resync, reassert, mirror, mirror-events, mirror-uploads,
        /// mirror-deletions, grasp, prune.
        #[arg(long = "queue", value_name = "NAME[=JOBS]", value_parser = serve::served_queue)]
        queues: Vec<(String, Option<u16>)>,
        /// Jobs of sync-relay at the same time in this process (default: `RELAY_SYNC_CONCURRENCY`).
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
        concurrency: Option<u16>,
    },
    /// Bring the database up to date.
    Migrate,
    /// Watch twelve relays being provisioned on a stand-in for zooid, some after failures. Needs no
    /// configuration.
    Demo {
        /// End when all are synced, with exit code 0.
        #[arg(long)]
        once: bool,
    },
    /// Check configuration, database, zooid and workers, and say what to do.
    Doctor,
    /// Show and change relays.
    #[command(subcommand)]
    Relay(provision::RelayCommand),
    /// Show zooid instances, and forget those that nobody uses any more.
    #[command(subcommand)]
    Instance(provision::InstanceCommand),
    /// Show queues and jobs; retry, cancel and delete jobs; pause, resume and scale queues.
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Keep events in step with other relays.
    #[command(subcommand, alias = "sync")]
    Mirror(mirror::MirrorCommand),
    /// Host git repositories: follow the relays that their announcements name.
    #[command(subcommand)]
    Grasp(grasp::GraspCommand),
    /// Create and revoke keys of the API `/api/v1`.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Enqueue a job for every pending relay that has none.
    Reconcile,
    /// Show the processes that run workers, and drain them.
    #[command(subcommand)]
    Process(process::ProcessCommand),
    /// Show the workers and their jobs.
    Workers,
    /// Show the last and the next run of each recurring job.
    Schedule,
    /// Show what operators did, on pages, by commands and with API keys, newest first.
    Audit(audit::AuditArgs),
    /// Show what needs attention on one screen. The exit code is 1 if something does.
    Status,
    /// Watch the fleet live in the terminal; q quits.
    Top,
    /// Print a login link for the dashboard that works once, within ten minutes.
    DashboardLink {
        /// End every dashboard session instead. Asks for confirmation.
        #[arg(long)]
        end_sessions: bool,
        #[command(flatten)]
        yes: ask::Yes,
    },
    /// Print the API's OpenAPI document.
    Openapi,
    /// Print the completions of a shell, such as `tender completions bash > /etc/bash_completion.d/tender`.
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the man pages, one per command, into a directory.
    Man {
        /// The directory; it is created if it does not exist.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Create a robot key. Prints `ROBOT_SECRET`, and the public key for zooid's `API_WHITELIST`.
    Keygen,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Why the command failed, worded for the operator.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        // The TLS provider for the database and for zooid; refused only if one is set already.
        let _set_already = rustls::crypto::ring::default_provider().install_default();
        let changes = audit::changes(&self.command);
        audit::CHANGES.scope(changes, Box::pin(self.dispatch())).await
    }

    async fn dispatch(self) -> anyhow::Result<ExitCode> {
        let json = self.json;
        self.flags.set();
        match self.command {
            Command::Serve => serve::serve(load(Needs::Wings, "info")?).await?,
            Command::Api => serve::api(load(Needs::Wings, "info")?).await?,
            Command::Work { queues, concurrency } => {
                serve::work(load(Needs::Wings, "info")?, queues, concurrency).await?;
            }
            Command::Migrate => migrate::migrate(&load(Needs::Database, "info")?, json).await?,
            Command::Demo { once } => demo::run(&load(Needs::Database, "error")?, once).await?,
            Command::Doctor => return doctor::run(json).await,
            Command::Relay(command) => command.run(json).await?,
            Command::Instance(command) => command.run(json).await?,
            Command::Queue(command) => command.run(json).await?,
            Command::Mirror(command) => Box::pin(command.run(json)).await?,
            Command::Grasp(command) => Box::pin(command.run(json)).await?,
            Command::Keys(command) => command.run(json).await?,
            Command::Reconcile => reconcile(json).await?,
            Command::Process(command) => command.run(json).await?,
            Command::Workers => fleet::workers(json).await?,
            Command::Schedule => fleet::schedule(json).await?,
            Command::Audit(args) => audit::show(&args, json).await?,
            Command::Status => return status::run(json).await,
            Command::Top => top::run(json).await?,
            Command::DashboardLink { end_sessions: false, .. } => {
                fleet::dashboard_link(json).await?;
            }
            Command::DashboardLink { end_sessions: true, yes } => {
                fleet::end_sessions(yes, json).await?;
            }
            Command::Openapi => print::json(&crate::http::openapi_document())?,
            Command::Completions { shell } => manual::completions(shell)?,
            Command::Man { dir } => manual::man(&dir, json)?,
            Command::Keygen => keygen(json)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn load(needs: Needs, default_level: &str) -> anyhow::Result<Config> {
    let config = Config::load(needs)?;
    init_log(&config, default_level);
    if let Some(file) = env_file() {
        tracing::info!(file = %file.display(), "variables were read from this file, too");
    }
    Ok(config)
}

/// Starts the log. The flags of the command take precedence over `LOG_LEVEL`.
fn init_log(config: &Config, default_level: &str) {
    match flags::Flags::get().level() {
        Some(level) => telemetry::init(&LogConfig { level: None, ..config.log.clone() }, level),
        None => telemetry::init(&config.log, default_level),
    }
}

/// The operator on the command line, as activity and the audit log name it: user@host.
fn operator() -> By {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::current()).ok().flatten();
    let user = user.map_or_else(|| "unknown".to_owned(), |user| user.name);
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
    By { who: format!("{user}@{}", host.unwrap_or_else(|| "unknown".to_owned())), trace: None }
}

/// Opens the database for one command, and closes it also if the command fails. A database that does not exist
/// is an error: a command that reads creates none. A change that was refused or failed is recorded.
async fn with_database<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Database) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    migrate::check_exists(config)?;
    with_new_database(config, work).await
}

/// Opens the database for a command that may be the first one, and creates a private PostgreSQL if there is
/// none.
async fn with_new_database<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Database) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let database = migrate::open(config).await?;
    let result = work(&database).await;
    if let Err(error) = &result {
        audit::record(&database.pool, error).await;
    }
    database.close().await;
    result
}

/// Prints the keys in the form of a `.env` file.
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
        let rest = config.provision.exhausted_after;
        let enqueued = tender_workers::provision::reconcile(&database.pool, rest).await?;
        let result = format!("enqueued {enqueued} pending relays that had no job");
        actions::record(&database.pool, &operator().who, "reconcile", "", &result).await?;
        if json {
            return print::json(&serde_json::json!({ "enqueued": enqueued }));
        }
        print::line(&result)
    })
    .await
}
