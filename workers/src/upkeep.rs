//! Upkeep of what belongs to no wing: finished jobs, old statistics, ended sessions and old actions of
//! operators are deleted.

use std::time::Duration;

use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    PRUNE, console,
    queue::{self, Job, NewJob, Retention},
};

use crate::runtime::{Recurring, Schedule, Station, Wing, outcome};

/// In the middle of every minute, away from the recurring jobs that run on the minute.
const PRUNE_SCHEDULE: &str = "30 * * * * *";
/// Batches of one run; with a run every minute, this keeps up with 1,600 finished jobs per second.
const BATCHES: u32 = 20;

/// The wing that prunes. `history` is how long the actions of operators are kept.
pub fn wing(db: &PgPool, keep: Retention, history: Duration) -> Wing {
    let db = db.clone();
    let station = Station::new(PRUNE, 1, move |job| prune(db.clone(), job, keep, history));
    let recurring = PRUNE_SCHEDULE.parse().ok().map(|schedule: Schedule| {
        Recurring::new(PRUNE, schedule, NewJob::new(PRUNE, &json!({ "v": 1 })))
    });
    let wing = Wing::new("upkeep").station(station);
    recurring.into_iter().fold(wing, Wing::recurring)
}

async fn prune(db: PgPool, job: Job, keep: Retention, history: Duration) {
    let work = async {
        let pruned = queue::prune(&db, keep, BATCHES).await?;
        console::prune(&db, history).await?;
        Ok(json!(pruned))
    };
    outcome::recurring(&db, &job, PRUNE, Box::pin(work)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_of_pruning_is_one() {
        assert!(PRUNE_SCHEDULE.parse::<Schedule>().is_ok());
    }
}
