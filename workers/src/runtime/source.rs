//! apalis's worker over our queue: a [`Backend`] that fetches, waits for hints and sends heartbeats.
//!
//! apalis provides the worker's loop, its concurrency limit and its orderly stop. It never writes a
//! job's outcome: our handlers settle their own rows (`docs/adr/0001-settle-our-own-rows.md`).

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use apalis_core::{
    backend::{
        Backend, BackendConfig,
        finalize::Ephemeral,
        persistence::{Persisted, Persistence, State, TaskEvent},
    },
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use metrics::histogram;
use sqlx::PgPool;
use tender_jobs::queue::{self, Depth, Job, RECENT};
use tokio::sync::watch;
use tower::layer::util::Identity;

use super::{HEARTBEAT, Station, pause};

/// How often a worker looks at every due job, and not only at recent ones.
const LOOK_AT_ALL: Duration = Duration::from_secs(5);

/// Why a worker ends and is restarted.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("the connection to the database failed")]
    Database(#[from] sqlx::Error),
    #[error("the worker is not registered any more")]
    Unregistered,
}

/// One queue, read by one worker.
#[derive(Debug)]
pub(super) struct Source {
    persisted: Persisted<Fetcher>,
    config: (),
}

impl Source {
    pub(super) fn new(
        db: PgPool,
        station: &Station,
        process: String,
        hint: watch::Receiver<u64>,
    ) -> Self {
        let batch = i32::try_from(station.concurrency).unwrap_or(i32::MAX);
        let (queue, poll) = (station.queue, station.poll);
        let (looked_at_all, is_behind) = (None, false);
        let fetcher = Fetcher { db, queue, batch, poll, process, hint, looked_at_all, is_behind };
        Self { persisted: Persisted::new(fetcher), config: () }
    }
}

impl Backend for Source {
    type Task = Task<Job>;
    type Error = SourceError;

    fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Result<(), SourceError>> {
        self.persisted.poll_ready(cx, worker, HEARTBEAT)
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Task<Job>, SourceError>>> {
        let polled = self.persisted.poll_next(cx, worker);
        // An empty fetch has waited already (see `fetch_next`): send a due heartbeat and fetch again.
        // Without this only the heartbeat's timer would wake the worker.
        if polled.is_pending() && matches!(self.persisted.state(), State::Ready) {
            cx.waker().wake_by_ref();
        }
        polled
    }

    fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Result<(), SourceError>> {
        self.persisted.poll_close(cx, worker)
    }
}

impl BackendConfig for Source {
    type Args = Job;
    type Id = String;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &self.config
    }

    fn middleware(&mut self, _worker: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}

#[derive(Debug, Clone)]
struct Fetcher {
    db: PgPool,
    queue: &'static str,
    batch: i32,
    poll: Duration,
    process: String,
    hint: watch::Receiver<u64>,
    /// The last look at every due job.
    looked_at_all: Option<Instant>,
    /// Whether a job was due that a look at recent ones would not find.
    is_behind: bool,
}

impl Fetcher {
    /// Mostly recent jobs; every due job at the start, regularly, and while the worker is behind.
    fn next_depth(&mut self) -> Depth {
        let is_recent = self.looked_at_all.is_some_and(|at| at.elapsed() < LOOK_AT_ALL);
        if is_recent && !self.is_behind {
            return Depth::Recent;
        }
        self.looked_at_all = Some(Instant::now());
        Depth::All
    }
}

impl Persistence for Fetcher {
    type Compact = Job;
    type Response = ();
    type Error = SourceError;

    async fn register(&mut self, worker: &WorkerContext) -> Result<(), SourceError> {
        Ok(queue::register(&self.db, worker.name(), self.queue, &self.process).await?)
    }

    async fn heartbeat(&mut self, worker: &WorkerContext) -> Result<(), SourceError> {
        if queue::heartbeat(&self.db, worker.name()).await? {
            Ok(())
        } else {
            Err(SourceError::Unregistered)
        }
    }

    /// Fetches jobs. If none is due, waits for a hint or for the poll interval, and returns none. The
    /// counter is read before the fetch, so that a notification during the fetch is not lost.
    async fn fetch_next(&mut self, worker: &WorkerContext) -> Result<Vec<Task<Job>>, SourceError> {
        self.hint.mark_unchanged();
        let depth = self.next_depth();
        let jobs = queue::fetch(&self.db, worker.name(), self.queue, self.batch, depth).await?;
        if depth == Depth::All {
            self.is_behind = jobs.iter().any(|job| job.waited >= RECENT);
        }
        if jobs.is_empty() {
            let hinted = tokio::time::timeout(self.poll, self.hint.changed()).await;
            if let Ok(Err(_)) = hinted {
                pause(self.poll).await; // the sender is gone: the process is about to end
            }
        }
        for job in &jobs {
            histogram!("tender_queue_latency_seconds", "queue" => self.queue)
                .record(job.waited.as_secs_f64());
        }
        Ok(jobs.into_iter().map(task).collect())
    }

    async fn reenqueue_abandoned(
        &mut self,
        _tasks: Vec<Task<Job>>,
        worker: &WorkerContext,
    ) -> Result<u64, SourceError> {
        let released = queue::release(&self.db, worker.name()).await?;
        Ok(u64::try_from(released).unwrap_or(u64::MAX))
    }

    async fn handle_events(
        &mut self,
        _events: Vec<TaskEvent<()>>,
        _worker: &WorkerContext,
    ) -> Result<(), SourceError> {
        Ok(()) // no layer of ours sends any
    }

    async fn push_tasks(&mut self, _tasks: Vec<Task<Job>>) -> Result<(), SourceError> {
        Ok(()) // jobs are enqueued in the transaction that causes them, never through a worker
    }
}

fn task(job: Job) -> Task<Job> {
    let id = TaskId::from_string(job.id.clone());
    TaskBuilder::new(job).task_id(id).build()
}
