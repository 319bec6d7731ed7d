//! The demo of GRASP, with local relays. A service hosts 300 repositories whose events lie on a chain
//! of relays: the service's relay names A, announcements on A name B, those on B name C. Tender
//! discovers the chain and fetches 20,000 events. Meanwhile the line to B is cut for two seconds, the
//! worker is killed, one more relay never answers, and another one lies. `bin/demo grasp` runs it, and keeps
//! everything running until Ctrl-C; with `--once` it ends.
#![allow(clippy::print_stdout, reason = "a demo prints")]

mod events;
mod others;
mod relays;
mod show;

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::Context as _;
use sqlx::PgPool;
use tender::{
    config::{Config, Env, Needs},
    postgres::Database,
};
use tender_jobs::{
    database,
    grasp::service::{self, NewService},
    queue,
};
use tender_workers::runtime::pause;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
};

use events::{Events, Size};
use relays::{Line, Relay};

/// The demo fails if it takes longer than this.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long the line to B is cut.
const CUT: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _set_already = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::read(&mut Env::of_process(), Needs::Database)?;
    config.database.url = None;
    config.database.data_dir.push(format!("demo-grasp-{}", std::process::id()));
    println!("Creating a private PostgreSQL, which the demo removes at its end …");
    let database = Database::open(&config.database).await?;
    let data_dir = config.database.data_dir.clone();
    let once = std::env::args().any(|argument| argument == "--once");
    let shown = show_and_stay(&database.pool, &data_dir, once).await;
    database.destroy().await;
    let _not_there = std::fs::remove_dir(&data_dir);
    shown
}

/// Shows the demo; then waits for Ctrl-C, unless it is to end.
async fn show_and_stay(db: &PgPool, data_dir: &Path, once: bool) -> anyhow::Result<()> {
    let shown = tokio::time::timeout(PATIENCE, run(db, data_dir)).await;
    let (chain, mut worker) = shown.context("the demo took longer than five minutes")??;
    if !once {
        stay(data_dir, &chain).await?;
    }
    Ok(worker.kill().await?)
}

/// Starts the dashboard, says how to look around, and waits for Ctrl-C.
async fn stay(data_dir: &Path, chain: &Chain) -> anyhow::Result<()> {
    let free = TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.to_string();
    let of_api = |argument: &str| -> anyhow::Result<Command> {
        let mut command = tender(data_dir)?;
        command.arg(argument).env("API_BIND", &free);
        Ok(command)
    };
    let mut api = of_api("api")?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let link = of_api("dashboard-link")?.output().await?;
    show::suggest(data_dir, chain, String::from_utf8_lossy(&link.stdout).trim());
    tokio::signal::ctrl_c().await?;
    Ok(api.kill().await?)
}

/// The relays of the demo.
struct Chain {
    own: Relay,
    a: Relay,
    b: Relay,
    c: Relay,
    /// The line to B.
    line: Line,
}

async fn run(db: &PgPool, data_dir: &Path) -> anyhow::Result<(Chain, Child)> {
    database::migrate(db).await?;
    let chain = Chain::start().await?;
    let (silent, liar) = (others::silent().await?, others::liar().await?);
    let now = queue::now(db).await?.timestamp();
    let size = Size { each: 100, total: 20_000 };
    println!("Creating the events of {} repositories …", 3 * size.each);
    let urls = [&chain.own.url, &chain.a.url, &chain.line.url, &chain.c.url, &silent, &liar];
    let urls = urls.map(Clone::clone);
    let events = tokio::task::spawn_blocking(move || Events::create(now, &urls, size)).await?;
    chain.fill(&events).await?;
    println!("They are {} events.", events.total());
    show::beginning(&chain, &silent, &liar);
    let service = NewService { url: chain.own.url.clone(), private: true, ..NewService::default() };
    service::create(db, &service).await?;
    let progress = show::Progress::new(events.total(), &events.hosts());
    let mut worker = start_worker(data_dir)?;
    progress.until(db, events.total() / 4).await?;
    progress.say("The line to B is cut for two seconds.");
    chain.line.cut();
    pause(CUT).await;
    chain.line.mend();
    progress.until(db, events.total() / 2).await?;
    progress.say("The worker is killed (kill -9), and another one is started.");
    worker.kill().await?;
    worker = start_worker(data_dir)?;
    progress.until_covered(db).await?;
    show::until_uploaded(&chain.own, &events).await?;
    let took = progress.finish();
    show::end(db, data_dir, &events, took).await?;
    Ok((chain, worker))
}

impl Chain {
    async fn start() -> anyhow::Result<Self> {
        let (own, a) = (Relay::start().await?, Relay::start().await?);
        let (b, c) = (Relay::start().await?, Relay::start().await?);
        let line = Line::to(&b.url).await?;
        Ok(Self { own, a, b, c, line })
    }

    async fn fill(&self, events: &Events) -> anyhow::Result<()> {
        self.own.fill(&events.own).await?;
        self.a.fill(&events.a).await?;
        self.b.fill(&events.b).await?;
        self.c.fill(&events.c).await
    }
}

/// Starts the workers as a process of their own, so that they can be killed.
fn start_worker(data_dir: &Path) -> anyhow::Result<Child> {
    let mut command = tender(data_dir)?;
    command.arg("work").stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("could not start `tender work`")
}

/// The executable, which the build has put beside this one's folder.
fn tender(data_dir: &Path) -> anyhow::Result<Command> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).context("the example has no folder")?;
    let mut command = Command::new(folder.join("tender"));
    command
        .env_remove("DATABASE_URL")
        .env("TENDER_DATA_DIR", data_dir)
        .env("ALLOW_PRIVATE_UPSTREAMS", "true")
        .env("LOG_LEVEL", "error")
        .kill_on_drop(true);
    Ok(command)
}
