//! Actions on queues and jobs: pause, resume, retry, cancel.

use axum::extract::Path;
use serde_json::json;
use tender_jobs::{
    queue::{self, Matching},
    steer::{self, Steered},
};

use super::{
    PATH,
    actions::{Action, Answer, Asked, begin},
    jobs::{is_open, state_of},
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
    let is_pause = verb == "pause";
    let doing = doing.changed(json!({ "paused": !is_pause }), json!({ "paused": is_pause }));
    let words = if is_pause {
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
    let steered = if verb == "retry" {
        steer::retry(db, &id, &doing.by()).await
    } else {
        steer::cancel(db, &id, &doing.by()).await
    };
    let words = steered.map(|steered| match steered {
        Steered::RelayRequeued(_) => "The relay of the job has a new job, due now.".to_owned(),
        Steered::Requeued => "The job is due now.".to_owned(),
        Steered::Cancelled => "The job is cancelled.".to_owned(),
    });
    doing.done(words.map_err(|error| error.to_string())).await
}

pub(super) async fn retry_all(asked: Asked) -> Answer {
    let form = &asked.form;
    let action = Action {
        name: "retry_all".to_owned(),
        target: format!("queue {} state {} error {}", form.queue, form.state, form.error),
        question: "Retry all jobs that match?",
        path: format!("{PATH}/jobs/retry-all"),
        otherwise: format!("{PATH}/jobs"),
    };
    let doing = begin!(asked, action);
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (queue, error, state) = (text(&form.queue), text(&form.error), state_of(&form.state));
    let matching = Matching { queue, state, error, is_open: is_open(&form.state) };
    let retried = steer::retry_all(&asked.dashboard.db, &matching, &doing.by()).await;
    let words = retried.map(|retried| format!("{retried} jobs requeued."));
    doing.done(words.map_err(|error| error.to_string())).await
}
