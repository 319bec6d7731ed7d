//! Actions on a queue or a job: pause, resume; retry, cancel, delete.

use axum::extract::Path;
use tender_jobs::{
    queue,
    steer::{self, Steered},
};

use super::{
    PATH,
    actions::{Action, Answer, Asked, begin},
    parts::Problem,
};

pub(super) async fn queue(Path((queue, verb)): Path<(String, String)>, asked: Asked) -> Answer {
    let db = &asked.dashboard.db;
    let question = match verb.as_str() {
        "pause" => "Pause this queue?",
        "resume" => "Resume this queue?",
        _ => return Err(Problem::NotFound),
    };
    if !tender_jobs::queues().contains(&queue.as_str()) {
        return Err(Problem::NotFound);
    }
    let action = Action {
        name: format!("{verb}_queue"),
        target: queue.clone(),
        question,
        path: format!("{PATH}/queues/{queue}/{verb}"),
        otherwise: format!("{PATH}/queues"),
    };
    let doing = begin!(asked, action);
    let words = if verb == "pause" {
        if queue::pause(db, &queue, &asked.viewer.who).await? {
            format!("{queue} is paused. Running jobs end, and no other job starts.")
        } else {
            format!("{queue} was paused before; nothing changed.")
        }
    } else {
        if queue::resume(db, &queue).await? {
            format!("{queue} is resumed.")
        } else {
            format!("{queue} was not paused; nothing changed.")
        }
    };
    doing.done(Ok(words)).await
}

pub(super) async fn job(Path((id, verb)): Path<(String, String)>, asked: Asked) -> Answer {
    let db = &asked.dashboard.db;
    let question = match verb.as_str() {
        "retry" => "Retry this job now?",
        "cancel" => "Cancel this job?",
        "delete" => "Delete this job for good?",
        _ => return Err(Problem::NotFound),
    };
    let action = Action {
        name: format!("{verb}_job"),
        target: id.clone(),
        question,
        path: format!("{PATH}/jobs/{id}/{verb}"),
        otherwise: format!("{PATH}/jobs/{id}"),
    };
    let doing = begin!(asked, action);
    let steered = match verb.as_str() {
        "retry" => steer::retry(db, &id, &doing.by()).await,
        "cancel" => steer::cancel(db, &id, &doing.by()).await,
        _ => steer::delete(db, &id, &doing.by()).await,
    };
    let words = steered.map(|steered| match steered {
        Steered::RelayRequeued(_) => "The relay of the job has a new job, due now.".to_owned(),
        Steered::Requeued => "The job is due now.".to_owned(),
        Steered::Cancelled => "The job is cancelled.".to_owned(),
        Steered::Deleted => "The job is deleted.".to_owned(),
    });
    doing.done(words.map_err(|error| error.to_string())).await
}
