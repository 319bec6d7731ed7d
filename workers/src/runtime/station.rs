//! Stations: the queues that a process serves, and their handlers.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use tender_jobs::queue::Job;

use super::Place;

type Handler = Arc<dyn Fn(Job, Place) -> BoxFuture<'static, ()> + Send + Sync>;

/// A queue that this process serves.
#[derive(Clone)]
pub struct Station {
    pub(crate) queue: &'static str,
    pub(crate) concurrency: usize,
    pub(crate) handler: Handler,
    /// Whether the jobs leave their slots.
    pub(super) is_leaving: bool,
}

impl Station {
    /// Serves `queue` with up to `concurrency` jobs at the same time. A job is fetched into a free slot. As many again
    /// are fetched ahead while many are due and each ends within about 50 ms.
    pub fn new<Run, Running>(queue: &'static str, concurrency: usize, handler: Run) -> Self
    where
        Run: Fn(Job) -> Running + Send + Sync + 'static,
        Running: Future<Output = ()> + Send + 'static,
    {
        let leaving = Self::leaving(queue, concurrency, move |job, _place| handler(job));
        Self { is_leaving: false, ..leaving }
    }

    /// As [`Station::new`], for a handler that leaves its place before it writes its outcome. Four times as many are
    /// fetched ahead if each ends within about 10 ms: their payloads must be small.
    pub fn leaving<Run, Running>(queue: &'static str, concurrency: usize, handler: Run) -> Self
    where
        Run: Fn(Job, Place) -> Running + Send + Sync + 'static,
        Running: Future<Output = ()> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |job, place| handler(job, place).boxed());
        Self { queue, concurrency, handler, is_leaving: true }
    }
}
