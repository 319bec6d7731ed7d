//! The demo of GRASP, with local relays. A service hosts 300 repositories whose events lie on a chain
//! of relays: the service's relay names A, announcements on A name B, those on B name C. Tender
//! discovers the chain and fetches 20,000 events. Meanwhile the line to B is cut for two seconds, the
//! worker is killed, one more relay never answers, and another one lies. `bin/demo grasp` runs it.
#![allow(clippy::print_stdout, reason = "a demo prints")]

mod events;
mod others;
mod relays;
mod show;

use std::{path::Path, time::Duration};

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
use tokio::process::{Child, Command};

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
    let shown = tokio::time::timeout(PATIENCE, run(&database.pool, &data_dir)).await;
    database.destroy().await;
    let _not_there = std::fs::remove_dir(&data_dir);
    shown.context("the demo took longer than five minutes")?
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

async fn run(db: &PgPool, data_dir: &Path) -> anyhow::Result<()> {
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
    worker.kill().await?;
    Ok(())
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
    command.arg("work").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
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
