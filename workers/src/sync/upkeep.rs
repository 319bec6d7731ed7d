//! Upkeep: recovery, purge, events and deletions that waited in the queue.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    event::{self, EventId},
    lane::{self, LaneKind, Recovered},
    queue::{self, Job},
    upstream::{self, settings::Settings},
};
use uuid::Uuid;

use super::{intake, uploads};
use crate::Context;

/// Days that a deleted event stays before only its id is kept.
const KEPT_DAYS: i32 = 30;
/// Batches of one purge.
const BATCHES: u32 = 50;

/// Runs a recovery.
pub(super) async fn recover(context: &Context) -> Result<Value, sqlx::Error> {
    let recovered = recover_now(&context.db, &context.settings.sync.settings, None, None).await?;
    Ok(json!({ "stale": recovered.stale.len(), "errors": recovered.errors.len() }))
}

/// Frees lanes whose holder died or whose cool-down is over, and enqueues their work at once. Ages
/// given hold for all.
///
/// # Errors
/// The database did not answer.
pub async fn recover_now(
    db: &PgPool,
    deployment: &Settings,
    stale: Option<Duration>,
    error_age: Option<Duration>,
) -> Result<Recovered, sqlx::Error> {
    let usual = Duration::from_secs(60 * deployment.stale_threshold_minutes);
    let recovered = lane::recover(db, stale.unwrap_or(usual), stale.is_some(), error_age).await?;
    for freed in recovered.stale.iter().chain(&recovered.errors) {
        tracing::warn!(url = freed.url, lane = %freed.lane, error = freed.error, "a lane is free again");
        if freed.lane != LaneKind::Live {
            let mut connection = db.acquire().await?;
            queue::push_lane(&mut connection, freed.id, freed.lane, Duration::ZERO).await?;
        }
    }
    Ok(recovered)
}

/// Runs a purge.
pub(super) async fn purge(context: &Context) -> Result<Value, sqlx::Error> {
    let purged = event::purge(&context.db, KEPT_DAYS, BATCHES).await?;
    Ok(json!(purged))
}

/// Verifies and stores events that waited.
pub(super) async fn process_events(
    context: &Context,
    job: &Job,
    upstream: Uuid,
    events: &[String],
) {
    let work = async {
        let Some(upstream) = upstream::find(&context.db, upstream).await? else {
            return Ok(json!({ "skipped": "the relay is gone" }));
        };
        let limits = upstream.settings(&context.settings.sync.settings).limits();
        let tally = intake::take_in_texts(&context.db, upstream.id, events, limits).await?;
        Ok(json!({
            "received": tally.received, "stored": tally.stored, "duplicate": tally.duplicate,
            "rejected": tally.rejected(),
        }))
    };
    Box::pin(uploads::attempt(context, job, 5, work)).await;
}

/// Applies a stored deletion once more.
pub(super) async fn process_deletion(context: &Context, job: &Job, event: &str) {
    let work = async {
        let applied = match EventId::parse(event) {
            Some(id) => event::reapply_deletion(&context.db, id).await?,
            None => false,
        };
        Ok(if applied {
            json!("applied")
        } else {
            json!({ "skipped": "there is no such deletion" })
        })
    };
    Box::pin(uploads::attempt(context, job, 5, work)).await;
}
