//! Upkeep: recovers lanes, purges expired and deleted events, and processes events and deletions
//! from the queue.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    mirror::{
        deployment,
        event::{self, EventId},
        lane::{self, LaneKind, Recovered},
        upstream, work,
    },
    queue::Job,
};
use uuid::Uuid;

use super::{Context, intake, uploads};
use crate::runtime::outcome::Outcome;

/// The number of days that a deleted event is kept. After that only its id is kept.
const KEPT_DAYS: i32 = 30;
/// The maximum number of batches of one purge.
const BATCHES: u32 = 50;

/// Runs a recovery and returns the numbers of lanes. Removals without a job get one, and the counters
/// of kinds are rolled up.
pub(super) async fn recover(context: &Context) -> Result<Value, sqlx::Error> {
    let recovered = recover_now(&context.db, None, None).await?;
    let removals = upstream::resume_removals(&context.db).await?;
    upstream::forget_dead_connections(&context.db).await?;
    event::roll_up(&context.db).await?;
    let (stale, errors) = (recovered.stale.len(), recovered.errors.len());
    Ok(json!({ "stale": stale, "errors": errors, "removals": removals }))
}

/// Frees the lanes whose holder is dead or whose cool-down is over, enqueues their work at once and
/// returns them. If given, `stale` replaces the silence that the settings allow a holder, and
/// `error_age` replaces the cool-downs.
///
/// # Errors
/// The database is unreachable or refuses a statement. Lanes that were freed before stay free.
pub async fn recover_now(
    db: &PgPool,
    stale: Option<Duration>,
    error_age: Option<Duration>,
) -> Result<Recovered, sqlx::Error> {
    let minutes = deployment::settings(db).await?.stale_threshold_minutes;
    let usual = Duration::from_secs(60 * minutes);
    let recovered = lane::recover(db, stale.unwrap_or(usual), stale.is_some(), error_age).await?;
    for freed in recovered.stale.iter().chain(&recovered.errors) {
        tracing::warn!(url = freed.url, lane = %freed.lane, error = freed.error, "lane recovered");
        if freed.lane != LaneKind::Live {
            work::push_lane(db, freed.id, freed.lane, Duration::ZERO).await?;
        }
    }
    Ok(recovered)
}

/// Runs a purge and returns the numbers of events.
pub(super) async fn purge(context: &Context) -> Result<Value, sqlx::Error> {
    let purged = event::purge(&context.db, KEPT_DAYS, BATCHES).await?;
    Ok(json!(purged))
}

/// Runs a job that verifies and stores the events in its payload, which are then not stored a second
/// time in the queue.
pub(super) async fn process_events(
    context: &Context,
    job: &Job,
    upstream: Uuid,
    lane: Option<Uuid>,
    events: &[String],
) {
    let work = async {
        let Some(upstream) = upstream::find(&context.db, upstream).await? else {
            return Ok(json!({ "skipped": "the upstream was removed" }));
        };
        let limits = context.settings_of(&upstream).await?.limits();
        let gate = context.gate_of(&upstream);
        let tally =
            intake::take_in_texts(&context.db, upstream.id, lane, events, limits, gate).await?;
        Ok(json!({
            "received": tally.received(), "stored": tally.stored, "duplicate": tally.duplicate,
            "rejected": tally.rejected(),
        }))
    };
    Box::pin(uploads::attempt_and(context, job, work, Outcome::DoneAndEmptied)).await;
}

/// Runs a job that applies a stored deletion again.
pub(super) async fn process_deletion(context: &Context, job: &Job, event: &str) {
    let work = async {
        let applied = match EventId::parse(event) {
            Some(id) => event::reapply_deletion(&context.db, id).await?,
            None => false,
        };
        Ok(if applied {
            json!("applied")
        } else {
            json!({ "skipped": "the deletion is not stored" })
        })
    };
    Box::pin(uploads::attempt(context, job, work)).await;
}
