//! The job that judges the events of the store for a service, page by page.

use std::ops::ControlFlow;

use serde_json::json;
use tender_jobs::{grasp::service, queue::Job};
use uuid::Uuid;

use super::Context;
use crate::runtime::{manners, outcome, pages};

/// Runs the job, and settles it.
pub(super) async fn run(context: &Context, job: &Job, service: Uuid) {
    let page = || async {
        let page =
            manners::with_rest(async || service::scan_page(&context.db, service).await).await?;
        let more = page.more;
        Ok(if more { ControlFlow::Continue(page.judged) } else { ControlFlow::Break(page.judged) })
    };
    let work = pages::run(&context.stopping, page, |judged| json!({ "judged": judged }));
    outcome::attempt(&context.db, job, work).await;
}
