//! What operators ask of processes: jobs at the same time, and to take no other job.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::json;
use sqlx::PgPool;
use tender_jobs::queue::{
    self, JobFilter, JobState, NewJob, Page,
    process::{self, Process},
};
use tender_workers::runtime::{self, Outcome, Settings, Station, Wing, outcome};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::support::{World, eventually};

const QUEUE: &str = "greet";

/// A process whose jobs end when they are let.
struct Greeter {
    db: PgPool,
    running: Arc<AtomicUsize>,
    let_go: Arc<Semaphore>,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Greeter {
    fn start(world: &World, concurrency: usize) -> Self {
        let (running, let_go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (db, stop) = (world.db.clone(), CancellationToken::new());
        let (counting, going, ledger) = (running.clone(), let_go.clone(), db.clone());
        let station = Station::new(QUEUE, concurrency, move |job| {
            let (counting, going, ledger) = (counting.clone(), going.clone(), ledger.clone());
            async move {
                counting.fetch_add(1, Ordering::SeqCst);
                going.acquire().await.unwrap().forget();
                counting.fetch_sub(1, Ordering::SeqCst);
                outcome::attempt(&ledger, &job, async { Outcome::Done(json!("hello")) }).await;
            }
        });
        let wing = Wing::new("greetings").station(station);
        let how = Settings { process: "1.2.3 here:42".to_owned(), ..Settings::default() };
        let (ledger, stopping) = (db.clone(), stop.clone());
        let ended = tokio::spawn(async move {
            runtime::run(&ledger, how, vec![wing], stopping).await.unwrap();
        });
        Self { db, running, let_go, stop, ended }
    }

    async fn enqueue(&self, jobs: usize) {
        let jobs: Vec<_> = (0..jobs).map(|n| NewJob::new(QUEUE, &json!({ "n": n }))).collect();
        queue::enqueue(&self.db, &jobs).await.unwrap();
    }

    async fn runs(&self, jobs: usize) {
        let what = format!("{jobs} jobs run at the same time");
        eventually(&what, async || self.running.load(Ordering::SeqCst) == jobs).await;
    }

    async fn process(&self) -> Option<Process> {
        let processes = process::processes(&self.db).await.unwrap();
        processes.into_iter().find(|process| process.name == "1.2.3 here:42")
    }

    /// Waits until the process has followed the orders that are given now: a report that began later is over.
    async fn follows(&self) {
        for _ in 0..2 {
            let before = self.process().await.map(|process| process.last_seen_at);
            eventually("the process reports", async || {
                self.process().await.map(|process| process.last_seen_at) > before
            })
            .await;
        }
    }

    async fn waiting(&self) -> usize {
        let (queue, state) = (Some(QUEUE.to_owned()), Some(JobState::Waiting));
        let filter = JobFilter { queue, state, ..JobFilter::default() };
        queue::jobs(&self.db, &filter, &Page::First, 100).await.unwrap().len()
    }

    async fn end(self) {
        self.let_go.add_permits(100);
        self.stop.cancel();
        self.ended.await.unwrap();
        let left = process::processes(&self.db).await.unwrap();
        assert!(left.iter().all(|process| process.name != "1.2.3 here:42"), "it leaves the list");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_scaled_in_a_running_process_and_back() {
    let world = World::new().await;
    let greeter = Greeter::start(&world, 1);
    greeter.enqueue(6).await;
    greeter.runs(1).await;
    queue::scale(&world.db, QUEUE, 3, "me", Some("a crowd")).await.unwrap();
    greeter.runs(3).await;
    greeter.follows().await;
    let served = greeter.process().await.unwrap().stations[QUEUE];
    assert_eq!((served.jobs, served.configured), (3, 1));
    assert!(queue::unscale(&world.db, QUEUE).await.unwrap());
    greeter.follows().await;
    assert_eq!(greeter.process().await.unwrap().stations[QUEUE].jobs, 1);
    // Running jobs are not stopped, and the next one starts when one may run.
    greeter.runs(3).await;
    greeter.let_go.add_permits(2);
    greeter.runs(1).await;
    assert_eq!(greeter.waiting().await, 3);
    greeter.let_go.add_permits(1);
    eventually("another one is taken", async || greeter.waiting().await == 2).await;
    greeter.runs(1).await;
    greeter.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_process_finishes_what_it_runs_and_takes_no_other_job() {
    let world = World::new().await;
    let greeter = Greeter::start(&world, 4);
    greeter.enqueue(1).await;
    greeter.runs(1).await;
    eventually("the process is listed", async || greeter.process().await.is_some()).await;
    let id = greeter.process().await.unwrap().id;
    assert!(process::drain(&world.db, id, "me", Some("a new disk")).await.unwrap());
    assert!(!process::drain(&world.db, id, "me", None).await.unwrap(), "it drains already");
    greeter.follows().await;
    greeter.enqueue(3).await;
    greeter.let_go.add_permits(1);
    greeter.runs(0).await;
    greeter.follows().await; // longer than any poll of the queue
    assert_eq!(greeter.waiting().await, 3);
    let process = greeter.process().await.unwrap();
    assert_eq!(process.drain_reason.as_deref(), Some("a new disk"));
    assert!(process.is_alive && process.memory_bytes.unwrap() > 1_000_000);
    assert_eq!(process.wings, ["greetings"]);
    assert!(process::undrain(&world.db, id).await.unwrap());
    greeter.runs(3).await;
    greeter.end().await;
}
