//! Jobs that work page by page. Each page commits alone, so a job that starts again continues where the last
//! one ended.

use std::{
    future::Future,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Outcome;

/// A job that has run for this long leaves the other pages to its next run.
const WITHIN: Duration = Duration::from_secs(20);
/// When a job that failed is retried.
pub(crate) const AFTER_ERROR: Duration = Duration::from_secs(30);

/// What a page came to: the number of things that it did. [`ControlFlow::Break`] marks the last page.
pub(crate) type Page = Result<ControlFlow<usize, usize>, sqlx::Error>;

/// Runs pages until the last one, until the time is over or until the process stops. `told` says what all
/// pages came to, for people.
pub(crate) async fn run<F>(
    stopping: &CancellationToken,
    page: impl FnMut() -> F,
    told: impl FnOnce(usize) -> Value,
) -> Outcome
where
    F: Future<Output = Page>,
{
    match Box::pin(all(stopping, page)).await {
        Ok(Some(done)) => Outcome::Done(told(done)),
        Ok(None) => Outcome::Requeue(Duration::ZERO),
        Err(error) => Outcome::Retry { after: AFTER_ERROR, error: error.to_string() },
    }
}

/// Returns the sum of all pages, or `None` if others are left.
async fn all<F>(
    stopping: &CancellationToken,
    mut page: impl FnMut() -> F,
) -> Result<Option<usize>, sqlx::Error>
where
    F: Future<Output = Page>,
{
    let (begun, mut done) = (Instant::now(), 0);
    loop {
        match page().await? {
            ControlFlow::Break(last) => return Ok(Some(done + last)),
            ControlFlow::Continue(more) => done += more,
        }
        if begun.elapsed() > WITHIN || stopping.is_cancelled() {
            return Ok(None);
        }
    }
}
