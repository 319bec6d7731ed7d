//! Jobs that are fetched ahead of free slots: they start once, and never wait for a slow job while another process is
//! free.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tender_jobs::queue::{self, Job, NewJob, process};
use tender_workers::runtime::{self, Outcome, Settings, Station, Wing, outcome};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{World, eventually};

const QUEUE: &str = "greet";

/// Processes whose jobs end at once until the gate closes, and then when it opens.
#[derive(Clone, Default)]
struct Greetings {
    is_closed: Arc<AtomicBool>,
    behind_gate: Arc<AtomicUsize>,
    gate: Arc<Gate>,
    /// The jobs that ran, by number.
    ran: Arc<Mutex<Vec<i64>>>,
}

struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Greetings {
    async fn run(self, job: &Job) -> Outcome {
        let payload: Value = serde_json::from_slice(&job.payload).unwrap();
        self.ran.lock().unwrap().push(payload["n"].as_i64().unwrap());
        if self.is_closed.load(Ordering::SeqCst) {
            self.behind_gate.fetch_add(1, Ordering::SeqCst);
            let _open = self.gate.0.acquire().await.unwrap();
        }
        Outcome::Done(json!("hello"))
    }

    fn start(&self, world: &World, concurrency: usize, stop: &CancellationToken) -> JoinHandle<()> {
        let (greetings, ledger) = (self.clone(), world.db.clone());
        // Of the stations that may leave their slots, because they hold more.
        let station = Station::leaving(QUEUE, concurrency, move |job, _place| {
            let (greetings, ledger) = (greetings.clone(), ledger.clone());
            async move { outcome::attempt(&ledger, &job, greetings.run(&job)).await }
        });
        let (wing, stop) = (Wing::new("greetings").station(station), stop.clone());
        let (db, how) = (world.db.clone(), Settings::default());
        tokio::spawn(async move { runtime::run(&db, how, vec![wing], stop).await.unwrap() })
    }
}

async fn enqueue(world: &World, numbers: std::ops::Range<i64>) {
    let jobs: Vec<_> = numbers.map(|n| NewJob::new(QUEUE, &json!({ "n": n }))).collect();
    queue::enqueue(&world.db, &jobs).await.unwrap();
}

async fn count(world: &World, status: &str) -> i64 {
    sqlx::query_scalar("select count(*) from apalis.jobs where job_type = 'greet' and status = $1")
        .bind(status)
        .fetch_one(&world.db)
        .await
        .unwrap()
}

async fn all_ran_once(world: &World, greetings: &Greetings, jobs: i64) {
    eventually("all are done", async || count(world, "Done").await == jobs).await;
    let mut ran = greetings.ran.lock().unwrap().clone();
    ran.sort_unstable();
    assert_eq!(ran, (0..jobs).collect::<Vec<_>>());
    let attempts = "select count(*) from apalis.jobs where job_type = 'greet' and attempts <> 1";
    let again: i64 = sqlx::query_scalar(attempts).fetch_one(&world.db).await.unwrap();
    assert_eq!(again, 0, "nothing was spent on jobs that were put back");
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_jobs_run_once_each() {
    let world = World::new().await;
    let (greetings, stop) = (Greetings::default(), CancellationToken::new());
    let processes = [greetings.start(&world, 2, &stop), greetings.start(&world, 3, &stop)];
    for from in [0, 300, 600] {
        enqueue(&world, from..from + 300).await;
    }
    all_ran_once(&world, &greetings, 900).await;
    stop.cancel();
    for process in processes {
        process.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_held_ahead_are_put_back_when_the_others_become_slow() {
    let world = World::new().await;
    let (greetings, stop) = (Greetings::default(), CancellationToken::new());
    let process = greetings.start(&world, 4, &stop);
    enqueue(&world, 0..400).await;
    eventually("many are done", async || count(&world, "Done").await > 100).await;
    greetings.is_closed.store(true, Ordering::SeqCst);
    let behind_gate = || greetings.behind_gate.load(Ordering::SeqCst);
    eventually("all slots are taken", async || behind_gate() == 4).await;
    eventually("nothing is held", async || count(&world, "Queued").await == 0).await;
    assert_eq!(count(&world, "Running").await, 4);
    // Another process takes all the others.
    greetings.is_closed.store(false, Ordering::SeqCst);
    let other = greetings.start(&world, 2, &stop);
    eventually("the others are done", async || count(&world, "Done").await == 396).await;
    assert_eq!(behind_gate(), 4);
    greetings.gate.0.add_permits(400);
    all_ran_once(&world, &greetings, 400).await;
    stop.cancel();
    process.await.unwrap();
    other.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_drains_holds_nothing_ahead() {
    let world = World::new().await;
    let (greetings, stop) = (Greetings::default(), CancellationToken::new());
    let process = greetings.start(&world, 4, &stop);
    enqueue(&world, 0..2000).await;
    eventually("many are done", async || count(&world, "Done").await > 100).await;
    let id = process::processes(&world.db).await.unwrap()[0].id;
    process::drain(&world.db, id, "me", None).await.unwrap();
    let idle = "select count(*) from apalis.jobs where job_type = 'greet' and status in ('Queued', 'Running')";
    eventually("nothing is held", async || {
        let held: i64 = sqlx::query_scalar(idle).fetch_one(&world.db).await.unwrap();
        held == 0
    })
    .await;
    stop.cancel();
    process.await.unwrap();
}
