//! What a process asks of the database while it has nothing to do. Whatever it repeats is in a list here, with the
//! time between two of it; see `docs/adr/0026-one-poll-per-process.md`.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    PRUNE,
    grasp::service::{self, NewService},
    queue::{self, JobState, NewJob, schedule},
};
use tender_workers::{
    Wings, mirror, provision,
    runtime::{self, outcome},
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    World, eventually, retention, schedule as runs, settings, statements::recorded,
};

/// The statements of an idle process: a part of each, and the seconds between two of it.
const REPEATED: [(&str, u64); 9] = [
    (HEARTBEAT, 5),                                     // and the report of the process
    ("upkeep_is_due()", 5),                             // the rescue, and the wings' upkeep
    ("with beaten as ( insert into grasp_process", 10), // followed relays
    ("from upstream where", 10),                        // live lanes
    ("insert into zooid_instance as known", 30),
    ("from next_due(", 30), // the poll
    ("from fetch_jobs(", 30),
    ("with planned as ( insert into recurring_job", 60), // pruning
    ("check_low_water(", 300),
];
const HEARTBEAT: &str = "update apalis.workers worker set last_seen";
/// The end of the run of reconcile at the start.
const STARTED: &str = "noted as ( update recurring_job set last_ended_at";
/// Not in the time of a test.
const SELDOM: &str = "0 0 0 29 2 *";

/// A process of all wings, with a relay in step and an upstream.
struct Process {
    world: World,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Process {
    async fn start(mirror: mirror::Settings) -> Self {
        let (world, stop) = (World::new().await, CancellationToken::new());
        let upstream = "insert into upstream (url, enabled) values ('wss://a.test', false)";
        sqlx::query(upstream).execute(&world.db).await.unwrap();
        world.synced_relay("alpha").await;
        let rules = provision::Settings {
            reassert_within: Duration::ZERO,
            reconcile_schedule: SELDOM.parse().unwrap(),
            ..settings()
        };
        let wings = Wings {
            provision: Some((world.context.zooid.clone(), rules)),
            mirror: Some(mirror),
            retention: retention(),
            history: Duration::from_hours(24),
        };
        let queues = tender_jobs::queues().into_iter().filter(|queue| *queue != PRUNE);
        let queues = Some(queues.map(str::to_owned).collect());
        let how = runtime::Settings { queues, ..runtime::Settings::default() };
        let (db, stopping) = (world.db.clone(), stop.clone());
        let ended = tokio::spawn(async move {
            tender_workers::run(&db, how, wings, stopping).await.unwrap();
        });
        Self { world, stop, ended }
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.world.db).await.unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.ended.await.unwrap();
    }
}

/// On one thread, whose statements are recorded.
#[tokio::test]
async fn an_idle_process_asks_for_nothing_else() {
    let (statements, _recording) = recorded();
    let off = mirror::Settings { profile: mirror::Profile::Off, ..mirror::Settings::default() };
    let process = Process::start(off).await;
    eventually("it has started", async || {
        statements.count(HEARTBEAT) > 0 && statements.count(STARTED) > 0
    })
    .await;
    let began = Instant::now();
    statements.clear();
    eventually("four heartbeats", async || statements.count(HEARTBEAT) == 4).await;
    let (seconds, all) = (began.elapsed().as_secs(), statements.all());
    process.stop().await;

    for one in &all {
        let is_known = REPEATED.iter().any(|(text, _)| one.contains(text));
        assert!(is_known, "an idle process asks more than it must: {one}");
    }
    for (text, every) in REPEATED {
        let times = all.iter().filter(|one| one.contains(text)).count() as u64;
        assert!(times <= seconds / every + 2, "{times} times in {seconds} s: {text}");
    }
    assert!(2 * all.len() as u64 <= 3 * seconds, "{} statements in {seconds} s", all.len());
}

/// Both notes of a run are in the statements that start and end its job.
#[tokio::test]
async fn a_run_of_a_recurring_job_is_noted_without_further_statements() {
    let (statements, _recording) = recorded();
    let world = World::new().await;
    runs::plan(&world.db, "upkeep", PRUNE, SELDOM).await;
    let key = NewJob::new(PRUNE, &json!({ "v": 1 })).key("prune@1");
    queue::enqueue(&world.db, &[key]).await.unwrap();
    queue::register(&world.db, "prune-1", PRUNE, "test").await.unwrap();
    let job = queue::fetch(&world.db, "prune-1", PRUNE, 1).await.unwrap().remove(0);
    statements.clear();
    outcome::recurring(&world.db, &job, PRUNE, async { Ok(json!("done")) }).await;
    assert_eq!(statements.all().len(), 2, "{:?}", statements.all());
    let run = schedule::runs(&world.db, 10).await.unwrap().remove(0);
    assert!(run.started_at.is_some_and(|at| at <= run.ended_at) && run.error.is_none(), "{run:?}");
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Done);
}

#[tokio::test]
async fn a_run_goes_on_while_someone_holds_its_row_of_the_schedule() {
    let world = World::new().await;
    runs::plan(&world.db, "upkeep", PRUNE, SELDOM).await;
    let mut other = tender_jobs::database::begin(&world.db).await.unwrap();
    sqlx::query("select from recurring_job for update").execute(&mut *other).await.unwrap();
    // As the connections of a process, which wait for ten seconds.
    let options = (*world.db.connect_options()).clone().options([("lock_timeout", "100ms")]);
    let db = PgPool::connect_with(options).await.unwrap();
    queue::enqueue(&db, &[NewJob::new(PRUNE, &json!({ "v": 1 }))]).await.unwrap();
    queue::register(&db, "prune-1", PRUNE, "test").await.unwrap();
    let job = queue::fetch(&db, "prune-1", PRUNE, 1).await.unwrap().remove(0);
    outcome::recurring(&db, &job, PRUNE, async { Err(sqlx::Error::RowNotFound) }).await;
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Killed);
    other.rollback().await.unwrap();
}

const PLANNED: &str = "select count(*) from recurring_job
                       where name = 'grasp-reconcile' and next_at is not null";

#[tokio::test(flavor = "multi_thread")]
async fn followed_relays_are_reconciled_only_while_there_is_something_to_follow() {
    let process = Process::start(mirror::Settings::default()).await;
    let looked = "select count(*) from grasp_process";
    eventually("it has looked", async || process.number(looked).await == 1).await;
    let rows = "select count(*) from recurring_job where name = 'grasp-reconcile'";
    eventually("the schedule is stored", async || process.number(rows).await == 1).await;
    let runs = "select count(*) from apalis.jobs where idempotency_key like 'grasp-reconcile@%'";
    assert_eq!((process.number(PLANNED).await, process.number(runs).await), (0, 0));

    let service = NewService { url: "wss://git.test".to_owned(), ..NewService::default() };
    service::create(&process.world.db, &service).await.unwrap();
    eventually("it runs", async || process.number(runs).await > 0).await;
    assert_eq!(process.number(PLANNED).await, 1);
    process.stop().await;
}
