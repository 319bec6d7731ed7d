//! The job that removes a service, page by page.

use std::ops::ControlFlow;

use serde_json::json;
use tender_jobs::{grasp::service, queue::Job};
use uuid::Uuid;

use super::Context;
use crate::runtime::{outcome, pages};

/// Runs the job, and settles it.
pub(super) async fn run(context: &Context, job: &Job, service: Uuid) {
    let page = || async {
        let more = service::remove_page(&context.db, service).await?;
        Ok(if more { ControlFlow::Continue(0) } else { ControlFlow::Break(0) })
    };
    let work = pages::run(&context.stopping, page, |_| json!("the service is gone"));
    outcome::attempt(&context.db, job, work).await;
}
