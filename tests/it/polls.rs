//! How soon a process finds a due job: without waiting for its poll, which comes every 30 s.

use std::time::Duration;

use serde_json::json;
use tender_jobs::queue::{self, NewJob};
use tender_workers::runtime::{self, Listen, Outcome, Settings, Station, Wing, outcome};
use tokio_util::sync::CancellationToken;

use crate::support::{World, eventually, within};

const QUEUE: &str = "tick";
/// Half of the time between two polls: what takes longer was not announced.
const ANNOUNCED: Duration = Duration::from_secs(15);

/// A process that has just found that nothing is due.
struct Process {
    world: World,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Process {
    async fn start(listen: Listen) -> Self {
        let (world, stop) = (World::new().await, CancellationToken::new());
        let (db, ledger, stopping) = (world.db.clone(), world.db.clone(), stop.clone());
        let ended = tokio::spawn(async move {
            let station = Station::new(QUEUE, 2, move |job| {
                let ledger = ledger.clone();
                async move {
                    outcome::attempt(&ledger, &job, async { Outcome::Done(json!("tock")) }).await;
                }
            });
            let wing = Wing::new("clock").station(station);
            let how = Settings { listen, ..Settings::default() };
            runtime::run(&db, how, vec![wing], stopping).await.unwrap();
        });
        let process = Self { world, stop, ended };
        process.enqueue(Duration::ZERO).await;
        eventually("the first job is done", async || process.done().await == 1).await;
        process
    }

    async fn enqueue(&self, after: Duration) {
        let job = NewJob::new(QUEUE, &json!({ "v": 1 })).after(after);
        queue::enqueue(&self.world.db, &[job]).await.unwrap();
    }

    async fn done(&self) -> i64 {
        let sql = "select count(*) from apalis.jobs where job_type = 'tick' and status = 'Done'";
        sqlx::query_scalar(sql).fetch_one(&self.world.db).await.unwrap()
    }

    async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.world.db).await.unwrap();
    }

    /// Waits until a second job is done, and stops.
    async fn finds_it(self) {
        within(ANNOUNCED, "the job is done", async || self.done().await == 2).await;
        self.stop.cancel();
        self.ended.await.unwrap();
    }
}

#[tokio::test]
async fn a_job_with_a_delay_runs_when_it_is_due() {
    let process = Process::start(Listen::Pool).await;
    process.enqueue(Duration::from_millis(1500)).await;
    process.finds_it().await;
}

#[tokio::test]
async fn each_of_several_jobs_with_a_delay_runs_when_it_is_due() {
    let process = Process::start(Listen::Pool).await;
    for after in [3000, 500, 1500, 2000] {
        process.enqueue(Duration::from_millis(after)).await;
    }
    within(ANNOUNCED, "all are done", async || process.done().await == 5).await;
    process.enqueue(Duration::ZERO).await;
    within(ANNOUNCED, "the last one is done", async || process.done().await == 6).await;
    process.stop.cancel();
    process.ended.await.unwrap();
}

#[tokio::test]
async fn a_job_that_is_made_due_by_hand_runs_at_once() {
    let process = Process::start(Listen::Pool).await;
    process.enqueue(Duration::from_hours(1)).await;
    process.run("update apalis.jobs set run_at = now() where status = 'Pending'").await;
    process.finds_it().await;
}

#[tokio::test]
async fn a_queue_that_is_resumed_goes_on_at_once() {
    let process = Process::start(Listen::Pool).await;
    queue::pause(&process.world.db, QUEUE, "test", None).await.unwrap();
    process.enqueue(Duration::ZERO).await;
    assert_eq!(process.done().await, 1);
    assert!(queue::resume(&process.world.db, QUEUE).await.unwrap());
    process.finds_it().await;
}

#[tokio::test]
async fn a_process_that_does_not_listen_polls_each_second() {
    let process = Process::start(Listen::Off).await;
    process.enqueue(Duration::ZERO).await;
    process.finds_it().await;
}

#[tokio::test]
async fn a_job_that_came_while_nobody_listened_is_found_when_listening_begins_again() {
    let process = Process::start(Listen::Pool).await;
    let cut = "select pg_terminate_backend(pid, 60000) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid()";
    process.run(cut).await;
    // On a connection that was cut, too: the first statement may fail.
    let enqueued = "insert into apalis.jobs (id, job_type, job) values ('second', 'tick', '{}')";
    eventually("the job is enqueued", async || {
        sqlx::query(enqueued).execute(&process.world.db).await.is_ok()
    })
    .await;
    process.finds_it().await;
}
