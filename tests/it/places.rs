//! Jobs that leave their slots before they write their outcomes: others start, and nothing that is written is lost.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::json;
use sqlx::PgPool;
use tender_jobs::queue::{self, NewJob};
use tender_workers::runtime::{self, Outcome, Settings, Station, Wing, outcome};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{World, eventually};

const QUEUE: &str = "greet";
/// A queue of the same process that has no jobs.
const IDLE: &str = "idle";

/// Jobs of a queue with one slot, which leave it and then write when the gate opens.
#[derive(Clone)]
struct Writers {
    gate: Arc<Semaphore>,
    writing: Arc<AtomicUsize>,
}

impl Writers {
    fn new() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), writing: Arc::default() }
    }

    fn writing(&self) -> usize {
        self.writing.load(Ordering::SeqCst)
    }

    fn start(&self, world: &World, stop: &CancellationToken) -> JoinHandle<()> {
        let (writers, ledger) = (self.clone(), world.db.clone());
        let station = Station::leaving(QUEUE, 1, move |job, place| {
            let (writers, ledger) = (writers.clone(), ledger.clone());
            async move {
                let work = async {
                    place.leave();
                    writers.writing.fetch_add(1, Ordering::SeqCst);
                    writers.gate.acquire().await.unwrap().forget();
                    Outcome::Done(json!("hello"))
                };
                outcome::attempt(&ledger, &job, work).await;
            }
        });
        let idle = Station::new(IDLE, 1, |_| async {});
        let (wing, stop) = (Wing::new("greetings").station(station).station(idle), stop.clone());
        let db = world.db.clone();
        tokio::spawn(async move {
            runtime::run(&db, Settings::default(), vec![wing], stop).await.unwrap();
        })
    }
}

async fn enqueue(world: &World, jobs: i64) {
    let jobs: Vec<_> = (0..jobs).map(|n| NewJob::new(QUEUE, &json!({ "n": n }))).collect();
    queue::enqueue(&world.db, &jobs).await.unwrap();
}

async fn done(world: &World) -> i64 {
    let done = "select count(*) from apalis.jobs where job_type = 'greet' and status = 'Done'";
    sqlx::query_scalar(done).fetch_one(&world.db).await.unwrap()
}

/// Whether a worker of the queue has registered and not left.
async fn serves(db: &PgPool, queue: &str) -> bool {
    queue::workers(db).await.unwrap().iter().any(|worker| worker.queue == queue)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_job_starts_while_others_write() {
    let world = World::new().await;
    let (writers, stop) = (Writers::new(), CancellationToken::new());
    let process = writers.start(&world, &stop);
    enqueue(&world, 3).await;
    eventually("two jobs write, with one slot", async || writers.writing() == 2).await;
    writers.gate.add_permits(3);
    eventually("all are done", async || done(&world).await == 3).await;
    stop.cancel();
    process.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_process_waits_for_those_that_write() {
    let world = World::new().await;
    let (writers, stop) = (Writers::new(), CancellationToken::new());
    let process = writers.start(&world, &stop);
    enqueue(&world, 2).await;
    eventually("both write", async || writers.writing() == 2).await;
    eventually("both queues are served", async || serves(&world.db, IDLE).await).await;
    stop.cancel();
    eventually("the worker without jobs has ended", async || !serves(&world.db, IDLE).await).await;
    assert!(!process.is_finished(), "the other one waits");
    writers.gate.add_permits(2);
    process.await.unwrap();
    assert_eq!(done(&world).await, 2);
}
