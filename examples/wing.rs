//! A complete wing: a queue, its handler, and a recurring job.
//!
//! `cargo run --example wing postgres://…` greets Ada once, and everyone every minute
//! until Ctrl-C. The database must be migrated (`tender migrate`).
#![allow(clippy::print_stdout, reason = "an example prints")]

use anyhow::Context;
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::queue::{self, Job, NewJob};
use tender_workers::runtime::{self, Outcome, Recurring, Settings, Station, Wing, outcome};
use tokio_util::sync::CancellationToken;

/// The queue of this wing.
const GREET: &str = "greet";

/// Handles one job. The payload may hold anything, so the handler checks it.
async fn greet(db: PgPool, job: Job) {
    outcome::attempt(&db, &job, async {
        match serde_json::from_slice::<serde_json::Value>(&job.payload) {
            Ok(payload) => match payload["name"].as_str() {
                Some(name) => {
                    println!("Hello, {name}! (attempt {})", job.attempt);
                    Outcome::Done(json!({ "greeted": name }))
                }
                None => Outcome::Killed("the payload has no name".to_owned()),
            },
            Err(error) => Outcome::Killed(format!("the payload is unreadable: {error}")),
        }
    })
    .await;
}

/// Returns the wing: its queue and its recurring job.
pub fn wing(db: &PgPool) -> Result<Wing, runtime::InvalidCron> {
    let ledger = db.clone();
    let station = Station::new(GREET, 4, move |job| greet(ledger.clone(), job));
    let everyone = NewJob::new(GREET, &json!({ "v": 1, "name": "everyone" }));
    let minutely = Recurring::new("greet-everyone", "0 * * * * *".parse()?, everyone);
    Ok(Wing::new("greetings").station(station).recurring(minutely))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _set_already = rustls::crypto::ring::default_provider().install_default();
    let url = std::env::args().nth(1);
    let url = url.context("give the URL of a migrated database as the argument")?;
    let db = PgPool::connect(&url).await?;
    let ada = NewJob::new(GREET, &json!({ "v": 1, "name": "Ada" })).key("greet:ada");
    queue::enqueue(&db, &[ada]).await?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        let _ctrl_c = tokio::signal::ctrl_c().await;
        stopping.cancel();
    });
    runtime::run(&db, Settings::default(), vec![wing(&db)?], stop).await?;
    Ok(())
}
