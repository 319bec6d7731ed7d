//! The job that removes an upstream, page by page.

use std::ops::ControlFlow;

use serde_json::json;
use tender_jobs::{mirror::upstream, queue::Job};
use uuid::Uuid;

use super::Context;
use crate::runtime::{outcome, pages};

/// Runs the job, and settles it.
pub(super) async fn run(context: &Context, job: &Job, upstream: Uuid) {
    let page = || async {
        let more = upstream::remove_page(&context.db, upstream).await?;
        Ok(if more { ControlFlow::Continue(0) } else { ControlFlow::Break(0) })
    };
    let work = pages::run(&context.stopping, page, |_| json!("the upstream is gone"));
    outcome::attempt(&context.db, job, work).await;
}
