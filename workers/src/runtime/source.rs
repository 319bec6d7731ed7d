//! apalis's worker over our queue: a [`Backend`] that yields the jobs which `fetch` has taken.
//!
//! apalis provides the worker's loop and its orderly stop. It never writes a job's outcome: our handlers
//! settle their own rows (`docs/adr/0001-settle-our-own-rows.md`). It does not limit the jobs that run at
//! the same time either, because the fetching loop hands a job only to a free slot.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use tender_jobs::queue::Job;
use tokio::sync::mpsc;
use tower::layer::util::Identity;

use super::slots::Slot;

/// A job with the slot that it occupies until it has ended.
#[derive(Debug)]
pub(super) struct Slotted {
    pub(super) job: Job,
    pub(super) slot: Slot,
}

/// The jobs that one worker has fetched.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) jobs: mpsc::Receiver<Slotted>,
}

impl Backend for Source {
    type Task = Task<Slotted>;
    type Error = Infallible;

    fn poll_ready(
        &mut self,
        _cx: &mut Context<'_>,
        _worker: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        _worker: &WorkerContext,
    ) -> Poll<Option<Result<Task<Slotted>, Infallible>>> {
        self.jobs.poll_recv(cx).map(|fetched| fetched.map(|slotted| Ok(task(slotted))))
    }

    fn poll_close(
        &mut self,
        _cx: &mut Context<'_>,
        _worker: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Source {
    type Args = Slotted;
    type Id = String;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _worker: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}

fn task(slotted: Slotted) -> Task<Slotted> {
    let id = TaskId::from_string(slotted.job.id.clone());
    TaskBuilder::new(slotted).task_id(id).build()
}
