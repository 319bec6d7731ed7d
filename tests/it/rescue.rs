//! Rescue: the jobs of the dead, and pruning of what is finished.

use std::time::Duration;

use tender_jobs::{
    provision::{Claim, SYNC_RELAY, SyncPayload, relay::Relay},
    queue::{self, Job, JobState, NewJob, Pruned, Requeue, Requeued, Rescued, Retention, Settled},
};
use tender_workers::{
    provision::{Settings, sync_relay::Outcome},
    runtime::STUCK_AFTER,
};

use crate::support::{World, patiently, settings};

const ONE_REQUEUED: Rescued = Rescued { requeued: 1, superseded: 0, refused: 0 };
const ONE_SUPERSEDED: Rescued = Rescued { requeued: 0, superseded: 1, refused: 0 };

async fn let_die(world: &World) {
    world.expire_leases().await;
}

/// A rescue beside an open transaction, for which it must not wait.
async fn rescue_beside(world: &World) -> Rescued {
    patiently("the rescue waits for nobody", world.rescue()).await
}

/// A relay whose job was claimed: it is started, and its key is free.
async fn started(world: &World) -> (Relay, Job) {
    let relay = world.relay("alpha").await;
    let job = world.fetch().await;
    assert!(matches!(world.claim(&job, &relay.id).await, Claim::Ready(_)));
    (relay, job)
}

#[tokio::test]
async fn the_living_keep_their_jobs() {
    let world = World::new().await;
    world.relay("alpha").await;
    world.fetch().await;
    world.beat().await;
    assert_eq!(world.rescue().await, Rescued::default());
}

#[tokio::test]
async fn a_job_that_was_only_fetched_waits_again_as_it_was() {
    let world = World::new().await;
    world.relay("alpha").await;
    world.fetch().await;
    let_die(&world).await;
    assert_eq!(world.rescue().await, ONE_REQUEUED);
    let job = world.job().await;
    assert_eq!((job.summary.state, job.summary.attempts), (JobState::Waiting, 0));
    assert!(job.key.is_some() && job.summary.lock_by.is_none());
}

#[tokio::test]
async fn a_job_that_was_started_has_spent_an_attempt_and_gets_its_key_back() {
    let world = World::new().await;
    let (relay, _job) = started(&world).await;
    let_die(&world).await;
    assert_eq!(world.rescue().await, ONE_REQUEUED);
    let job = world.job().await;
    assert_eq!((job.summary.state, job.summary.attempts), (JobState::Waiting, 1));
    assert_eq!(job.key, Some(format!("relay:{}", relay.id)));
    assert_eq!(world.attempt().await, Outcome::Synced);
}

#[tokio::test]
async fn a_started_job_gives_way_to_a_newer_one() {
    let world = World::new().await;
    let (relay, job) = started(&world).await;
    world.rename(&relay, "newer").await;
    let_die(&world).await;
    assert_eq!(world.rescue().await, ONE_SUPERSEDED);
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Done);
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.reload(&relay).await.synced);
}

/// A rescue must not wait for a tenant's transaction, which may stay open: it leaves the job to the next
/// round.
#[tokio::test]
async fn a_newer_job_that_is_not_committed_yet_leaves_the_started_job_to_the_next_round() {
    let world = World::new().await;
    let (relay, job) = started(&world).await;
    let_die(&world).await;
    let mut open = tender_jobs::database::begin(&world.db).await.unwrap();
    let key = format!("relay:{}", relay.id);
    let newer = NewJob::new(SYNC_RELAY, &serde_json::json!({ "v": 1 })).key(key);
    assert_eq!(queue::enqueue(&mut *open, &[newer]).await.unwrap().len(), 1);

    assert_eq!(rescue_beside(&world).await, Rescued::default());
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Running);

    open.commit().await.unwrap();
    assert_eq!(world.rescue().await, ONE_SUPERSEDED);
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Done);
}

#[tokio::test]
async fn a_newer_job_that_is_never_committed_is_none() {
    let world = World::new().await;
    let (relay, job) = started(&world).await;
    let_die(&world).await;
    let mut open = tender_jobs::database::begin(&world.db).await.unwrap();
    let key = format!("relay:{}", relay.id);
    let newer = NewJob::new(SYNC_RELAY, &serde_json::json!({ "v": 1 })).key(key);
    queue::enqueue(&mut *open, &[newer]).await.unwrap();
    assert_eq!(rescue_beside(&world).await, Rescued::default());
    open.rollback().await.unwrap();
    assert_eq!(world.rescue().await, ONE_REQUEUED);
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Waiting);
}

/// One job whose row is locked does not hold up the others.
#[tokio::test]
async fn a_locked_job_is_left_to_the_next_round_and_the_others_are_rescued() {
    let world = World::new().await;
    let (_relay, locked) = started(&world).await;
    world.relay("beta").await;
    let other = world.fetch().await;
    let_die(&world).await;
    let mut open = tender_jobs::database::begin(&world.db).await.unwrap();
    sqlx::query("select from apalis.jobs where id = $1 for update")
        .bind(&locked.id)
        .execute(&mut *open)
        .await
        .unwrap();
    assert_eq!(rescue_beside(&world).await, ONE_REQUEUED);
    assert_eq!(world.job_by_id(&other.id).await.summary.state, JobState::Waiting);
    open.rollback().await.unwrap();
    assert_eq!(world.rescue().await, ONE_REQUEUED);
    assert_eq!(world.job_by_id(&locked.id).await.summary.state, JobState::Waiting);
}

/// A rescue no longer locks the relay's row: a mutation that holds it does not delay the relay's job.
#[tokio::test]
async fn a_locked_relay_does_not_hold_up_the_rescue_of_its_job() {
    let world = World::new().await;
    let (relay, job) = started(&world).await;
    let_die(&world).await;
    let mut open = tender_jobs::database::begin(&world.db).await.unwrap();
    sqlx::query("select from relay where id = $1 for update")
        .bind(relay.id.as_str())
        .execute(&mut *open)
        .await
        .unwrap();
    assert_eq!(rescue_beside(&world).await, ONE_REQUEUED);
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Waiting);
}

#[tokio::test]
async fn a_started_job_that_is_requeued_while_a_newer_one_waits_is_superseded() {
    let world = World::new().await;
    let (relay, job) = started(&world).await;
    world.rename(&relay, "newer").await;
    let how = Requeue::wait(Duration::ZERO);
    let requeued = queue::requeue(&world.db, &job, &how).await.unwrap();
    assert_eq!(requeued, Settled::Written(Requeued::Superseded));
    let ended = world.job_by_id(&job.id).await;
    assert_eq!(
        (ended.summary.state, ended.key, ended.summary.lock_by),
        (JobState::Done, None, None)
    );
    let newer = world.fetch().await;
    assert_ne!(newer.id, job.id);
    assert!(world.try_fetch().await.is_none(), "one job for the relay");
}

#[tokio::test]
async fn a_job_that_a_living_worker_lost_is_brought_back_after_two_minutes() {
    let world = World::new().await;
    world.relay("alpha").await;
    world.fetch().await;
    // Far from the limit of 120 s, because time passes between the statements.
    for (held, requeued) in [("60 s", 0), ("121 s", 1)] {
        world.beat().await;
        sqlx::query("update apalis.jobs set lock_at = now() - $1::interval")
            .bind(held)
            .execute(&world.db)
            .await
            .unwrap();
        assert_eq!(world.rescue().await.requeued, requeued, "{held}");
    }
}

#[tokio::test]
async fn many_rescuers_bring_each_job_back_once() {
    let settings = Settings { max_in_flight: 100, ..settings() };
    let world = World::with(settings, |_| {}).await;
    world.allow_calls(100).await;
    for number in 0..50 {
        world.relay(&format!("relay-{number}")).await;
        let job = world.fetch().await;
        let id = SyncPayload::parse(&job.payload).unwrap().relay_id;
        assert!(matches!(world.claim(&job, &id).await, Claim::Ready(_)));
    }
    let_die(&world).await;
    let rescuers: Vec<_> = (0..4)
        .map(|_| {
            let db = world.db.clone();
            tokio::spawn(async move {
                queue::rescue(&db, queue::DEAD_AFTER, STUCK_AFTER).await.unwrap().0
            })
        })
        .collect();
    let mut requeued = 0;
    for rescuer in rescuers {
        requeued += rescuer.await.unwrap().requeued;
    }
    assert_eq!(requeued, 50);
    assert!(world.jobs().await.iter().all(|job| job.summary.attempts == 1));
}

#[tokio::test]
async fn an_unreadable_job_of_the_dead_waits_again_and_is_killed_when_it_is_read() {
    let world = World::new().await;
    world.relay("alpha").await;
    world.fetch().await;
    sqlx::query("update apalis.jobs set job = 'nonsense'").execute(&world.db).await.unwrap();
    let_die(&world).await;
    assert_eq!(world.rescue().await.requeued, 1);
    assert_eq!(world.attempt().await, Outcome::Unreadable);
}

#[tokio::test]
async fn finished_jobs_leave_after_their_time_and_dead_workers_after_a_day() {
    let world = World::new().await;
    world.synced_relay("done-long-ago").await;
    sqlx::query("update apalis.jobs set done_at = now() - interval '25 h'")
        .execute(&world.db)
        .await
        .unwrap();
    world.synced_relay("done-just-now").await;
    world.zooid.plan(None, tender::demo::zooid::Fault::Status(400, None), Some(1));
    world.relay("killed").await;
    world.attempt().await;
    sqlx::query("update apalis.jobs set done_at = now() - interval '25 h' where status = 'Killed'")
        .execute(&world.db)
        .await
        .unwrap();
    world.relay("waiting").await;
    sqlx::query("update apalis.workers set last_seen = now() - interval '2 days'")
        .execute(&world.db)
        .await
        .unwrap();

    let keep = Retention { done: Duration::from_hours(24), killed: Duration::from_hours(168) };
    assert_eq!(queue::prune(&world.db, keep, 20).await.unwrap(), Pruned { jobs: 1, workers: 1 });
    assert_eq!(world.jobs().await.len(), 3);
    let keep = Retention { done: Duration::from_hours(24), killed: Duration::from_hours(24) };
    assert_eq!(queue::prune(&world.db, keep, 20).await.unwrap().jobs, 1);
}

/// A job of a queue of its own, fetched and started by a worker that is known to the ledger.
async fn started_of(world: &World, queue: &'static str) -> Job {
    let worker = format!("{queue}-{}", uuid::Uuid::new_v4());
    queue::register(&world.db, &worker, queue, "test").await.unwrap();
    let fetched = queue::fetch(&world.db, &worker, queue, 1).await.unwrap();
    let job = fetched.into_iter().next().expect("a job is due");
    assert_eq!(queue::start(&world.db, &job).await.unwrap(), Settled::Written(()));
    job
}

/// One more attempt of the only job of `deadly`: it fails with `error`, or crashes.
async fn attempt_deadly(world: &World, error: Option<&str>) -> Job {
    sqlx::query("update apalis.jobs set run_at = now() - interval '1 s'")
        .execute(&world.db)
        .await
        .unwrap();
    let job = started_of(world, "deadly").await;
    if let Some(error) = error {
        let how = Requeue::retry(Duration::ZERO, error);
        queue::requeue(&world.db, &job, &how).await.unwrap();
    } else {
        let_die(world).await;
        world.rescue().await;
    }
    job
}

/// The next attempt of the only job of `deadly`, which must not run.
async fn end_deadly(world: &World) -> Option<String> {
    let worker = format!("deadly-{}", uuid::Uuid::new_v4());
    queue::register(&world.db, &worker, "deadly", "test").await.unwrap();
    let fetched = queue::fetch(&world.db, &worker, "deadly", 1).await.unwrap();
    tender_workers::runtime::outcome::attempt(&world.db, &fetched[0], async {
        panic!("a job that crashed too often runs");
    })
    .await;
    let job = world.job_by_id(&fetched[0].id).await.summary;
    assert_eq!(job.state, JobState::Killed);
    job.error
}

#[tokio::test]
async fn a_job_that_kills_its_process_is_killed_after_as_many_crashes_as_it_has_attempts() {
    let world = World::new().await;
    let deadly = NewJob::new("deadly", &serde_json::json!({})).max_attempts(3);
    queue::enqueue(&world.db, &[deadly]).await.unwrap();
    for attempt in 1..=3 {
        let job = attempt_deadly(&world, None).await;
        assert_eq!((job.attempt, job.crashes, job.allowed_attempts()), (attempt, attempt - 1, 3));
    }
    assert_eq!(end_deadly(&world).await.as_deref(), Some("the worker died in 3 attempts"));
}

#[tokio::test]
async fn crashes_spend_no_attempts_and_keep_the_last_error_of_the_work() {
    let world = World::new().await;
    let deadly = NewJob::new("deadly", &serde_json::json!({})).max_attempts(3);
    queue::enqueue(&world.db, &[deadly]).await.unwrap();
    attempt_deadly(&world, None).await;
    attempt_deadly(&world, Some("upstream away")).await;
    attempt_deadly(&world, None).await;
    let job = attempt_deadly(&world, Some("disk full")).await;
    assert_eq!((job.crashes, job.is_last_attempt()), (2, false), "one failure of three");
    // Waiting, and being given back unstarted, keep the count.
    let waiting = started_of(&world, "deadly").await;
    assert!(waiting.is_last_attempt(), "two failures of three");
    queue::requeue(&world.db, &waiting, &Requeue::wait(Duration::ZERO)).await.unwrap();
    attempt_deadly(&world, None).await;
    let expected = "the worker died in 3 attempts; the last error was: disk full";
    assert_eq!(end_deadly(&world).await.as_deref(), Some(expected));
    // An operator's retry starts over.
    assert!(queue::retry(&world.db, &job.id).await.unwrap());
    let job = attempt_deadly(&world, None).await;
    assert_eq!((job.attempt, job.crashes, job.max_attempts), (1, 0, 3));
}

#[tokio::test]
async fn a_row_that_cannot_be_rescued_does_not_stop_the_others() {
    let world = World::new().await;
    let jobs = ["first", "second"].map(|key| NewJob::new("odd", &serde_json::json!({})).key(key));
    queue::enqueue(&world.db, &jobs).await.unwrap();
    let (first, second) = (started_of(&world, "odd").await, started_of(&world, "odd").await);
    // A row may hold anything: this one cannot go back to the queue.
    sqlx::raw_sql(
        "create function refuse() returns trigger language plpgsql as
             $$ begin raise exception 'refused'; end $$;
         create trigger refuse before update on apalis.jobs for each row
             when (old.idempotency_key = 'first') execute function refuse();",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let_die(&world).await;
    let rescued = world.rescue().await;
    assert_eq!((rescued.requeued, rescued.refused), (1, 1));
    let state = async |id: &str| world.job_by_id(id).await.summary.state;
    let of_first = state(&first.id).await;
    let states = if of_first == JobState::Running {
        (of_first, state(&second.id).await)
    } else {
        (state(&second.id).await, of_first)
    };
    assert_eq!(states, (JobState::Running, JobState::Waiting));
}
