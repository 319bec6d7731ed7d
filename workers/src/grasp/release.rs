//! The job that judges released events of a service, page by page. It gives its key away before it begins,
//! so that events which are released while it runs get a job of their own: none is left behind.

use std::ops::ControlFlow;

use serde_json::json;
use tender_jobs::{
    grasp::parked,
    queue::{self, Job},
};
use uuid::Uuid;

use super::Context;
use crate::runtime::{Outcome, outcome, pages};

/// Runs the job, and settles it.
pub(super) async fn run(context: &Context, job: &Job, service: Uuid) {
    let page = || async {
        let page = parked::released(&context.db, service).await?;
        Ok(page.map_or(ControlFlow::Break(0), |page| ControlFlow::Continue(page.judged)))
    };
    outcome::attempt(&context.db, job, async {
        if let Err(error) = queue::free_key(&context.db, job).await {
            return Outcome::Retry { after: pages::AFTER_ERROR, error: error.to_string() };
        }
        pages::run(&context.stopping, page, |judged| json!({ "judged": judged })).await
    })
    .await;
}
