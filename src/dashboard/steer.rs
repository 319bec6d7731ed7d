//! Actions on a job: retry, cancel, delete.

use axum::extract::Path;
use tender_jobs::steer::{self, Steered};

use super::{
    PATH,
    actions::{Action, Answer, Asked, begin},
    parts::Problem,
};

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
