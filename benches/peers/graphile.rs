//! graphile-worker, if Node and npm are present: its packages are installed under `target/bench`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sqlx::ConnectOptions;

use crate::{
    JOBS, drained,
    stub::Stub,
    support::{Bench, Process, statements},
};

/// Installs graphile-worker; `None` if that is not possible, which is printed.
pub(crate) fn install() -> Option<PathBuf> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/graphile");
    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/graphile");
    std::fs::create_dir_all(&to).unwrap();
    for file in ["package.json", "package-lock.json", "worker.mjs"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--loglevel=error", "--no-audit", "--no-fund"]).current_dir(&to);
    match npm.stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Some(to),
        other => {
            println!("graphile-worker is left out: npm ci: {other:?}");
            None
        }
    }
}

/// Carries the relays by one process of graphile-worker, and returns the jobs per second.
pub(crate) async fn carry(bench: Bench, folder: &Path, at_a_time: &str) -> f64 {
    bench.insert(JOBS, JOBS).await;
    let zooid = Stub::start().await;
    statements::reset(bench.db()).await;
    let worker = spawn(&bench, folder, &zooid.url, at_a_time);
    let rate = drained(&bench, &zooid).await;
    statements::print(bench.db()).await;
    drop(worker);
    bench.database.destroy().await;
    rate
}

/// Starts a process of graphile-worker, with a job for each relay.
pub(crate) fn spawn(bench: &Bench, folder: &Path, zooid: &str, at_a_time: &str) -> Process {
    let prepared = node(bench, folder).arg("prepare").status().unwrap();
    assert!(prepared.success(), "graphile-worker's schema");
    let secret = bench.robot.secret_key().to_secret_hex();
    Process::of(node(bench, folder).args(["work", zooid, &secret, at_a_time]).spawn().unwrap())
}

fn node(bench: &Bench, folder: &Path) -> Command {
    let options = bench.db().connect_options();
    let url = options.to_url_lossy();
    let mut node = Command::new("node");
    node.arg("worker.mjs").current_dir(folder).stdout(Stdio::null());
    node.env("PGHOST", bench.database.socket_dir().unwrap())
        .env("PGPORT", options.get_port().to_string())
        .env("PGUSER", options.get_username())
        .env("PGPASSWORD", url.password().unwrap_or_default())
        .env("PGDATABASE", options.get_database().unwrap());
    node
}
