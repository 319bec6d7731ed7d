//! Actions on a queue: pause, resume, and the number of jobs at the same time.

use axum::extract::Path;
use serde_json::json;
use sqlx::PgConnection;
use tender_jobs::queue::{self, MOST_AT_ONCE};

use crate::dashboard::{
    PATH,
    actions::{Action, Answer, Asked, begin},
    parts::Problem,
};

pub(in crate::dashboard) async fn queue(
    Path((queue, verb)): Path<(String, String)>,
    asked: Asked,
) -> Answer {
    let question = match verb.as_str() {
        "pause" => "Pause this queue?",
        "resume" => "Resume this queue?",
        "scale" => "Change how many jobs of this queue each process runs at the same time?",
        "unscale" => "Let each process run the number of jobs that it is configured with?",
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
    let mut tx = doing.open().await?;
    let done = match verb.as_str() {
        "pause" => pause(&asked, &mut tx, &queue).await?,
        "resume" => Ok(resume(&mut tx, &queue).await?),
        "scale" => scale(&asked, &mut tx, &queue).await?,
        _ => Ok(unscale(&mut tx, &queue).await?),
    };
    let reason = asked.field("reason");
    let doing = match verb.as_str() {
        "pause" => {
            doing.changed(json!({ "paused": false }), json!({ "paused": true, "reason": reason }))
        }
        "resume" => doing.changed(json!({ "paused": true }), json!({ "paused": false })),
        "scale" => {
            doing.changed(json!({}), json!({ "jobs": asked.field("jobs"), "reason": reason }))
        }
        _ => doing,
    };
    doing.commit(tx, done).await
}

/// The inner error is a form that the operator must correct.
type Done = Result<Result<String, String>, sqlx::Error>;

async fn pause(asked: &Asked, tx: &mut PgConnection, queue: &str) -> Done {
    let reason = match asked.reason() {
        Ok(reason) => reason,
        Err(words) => return Ok(Err(words)),
    };
    let paused = queue::pause(tx, queue, &asked.viewer.who, Some(reason)).await?;
    Ok(Ok(if paused {
        format!("{queue} is paused: {reason}. Running jobs end, and no other job starts.")
    } else {
        format!("{queue} was paused before; nothing changed.")
    }))
}

async fn resume(tx: &mut PgConnection, queue: &str) -> Result<String, sqlx::Error> {
    Ok(if queue::resume(tx, queue).await? {
        format!("{queue} is resumed.")
    } else {
        format!("{queue} was not paused; nothing changed.")
    })
}

async fn scale(asked: &Asked, tx: &mut PgConnection, queue: &str) -> Done {
    let jobs = asked.field("jobs").parse().ok().filter(|jobs| (1..=MOST_AT_ONCE).contains(jobs));
    let Some(jobs) = jobs else {
        return Ok(Err(format!("the number of jobs must be 1 to {MOST_AT_ONCE}")));
    };
    let reason = match asked.reason() {
        Ok(reason) => reason,
        Err(words) => return Ok(Err(words)),
    };
    let who = &asked.viewer.who;
    queue::scale(tx, queue, jobs, who, Some(reason)).await?;
    Ok(Ok(format!(
        "Each process runs {jobs} jobs of {queue} at the same time, within 5 s: {reason}."
    )))
}

async fn unscale(tx: &mut PgConnection, queue: &str) -> Result<String, sqlx::Error> {
    Ok(if queue::unscale(tx, queue).await? {
        format!("{queue} is back to the number of jobs that each process is configured with.")
    } else {
        format!("{queue} had its configured number; nothing changed.")
    })
}
