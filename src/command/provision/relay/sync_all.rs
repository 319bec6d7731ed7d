//! `relay sync --all`.

use sqlx::PgPool;
use tender_jobs::{
    console::operator as audit,
    provision::{RESYNC, start_resync},
    queue,
};

use crate::command::{operator, print};

/// Starts the resync of every relay, which then runs in the background.
pub(super) async fn sync_all(db: &PgPool, rate: u32, json: bool) -> anyhow::Result<()> {
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
    if !workers.iter().any(|worker| worker.serves() && worker.queue == RESYNC) {
        words.push_str(
            "; it waits, because no worker of the queue resync is running: start `tender work` or \
             `tender serve` with ZOOID_API_URL",
        );
    }
    audit::record(db, &operator().who, "sync_all", "", &words).await?;
    print::done(json, &words)
}
