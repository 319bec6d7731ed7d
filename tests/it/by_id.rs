//! A job that is named by its id is found by its id. The indexes of held jobs and of workers are small at times, and
//! full of dead entries at others: a plan that walks them reads all of them for one job.

use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    provision::{self, Attempt, Claim, ClaimRequest, Completed, Completion, SyncPayload},
    queue::{self, Job, NewJob, Requeue, Settled},
};

use crate::support::{World, database::in_a_session};

const INDEXES: [&str; 2] = ["apalis.jobs_held_idx", "apalis.idx_apalis_jobs_lock_by"];

/// How often each of [`INDEXES`] was scanned.
async fn scans(world: &World) -> Vec<i64> {
    let scans =
        "select pg_stat_get_numscans(name::regclass) from unnest($1::text[]) with ordinality
                 as indexes (name, place) order by place";
    sqlx::query_scalar(scans).bind(INDEXES).fetch_all(&world.db).await.unwrap()
}

/// Runs `work` in a session of its own, and returns how often it scanned each of [`INDEXES`].
async fn scans_of(world: &World, work: impl AsyncFnOnce(&PgPool)) -> Vec<i64> {
    let before = scans(world).await;
    in_a_session(&world.db, work).await;
    scans(world).await.into_iter().zip(before).map(|(after, before)| after - before).collect()
}

async fn job(world: &World) -> Job {
    queue::enqueue(&world.db, &[NewJob::new("by-id", &json!({}))]).await.unwrap();
    queue::fetch(&world.db, &world.worker, "by-id", 1).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_job_starts_ends_and_goes_back_by_its_id() {
    let world = World::new().await;
    let (ended, killed, requeued) = (job(&world).await, job(&world).await, job(&world).await);
    let scans = scans_of(&world, async |db| {
        for job in [&ended, &killed, &requeued] {
            assert_eq!(queue::start(db, job).await.unwrap(), Settled::Written(()));
        }
        queue::finish(db, &ended, &json!("ok")).await.unwrap();
        queue::kill(db, &killed, "no").await.unwrap();
        let back = Requeue::wait(std::time::Duration::ZERO);
        assert!(matches!(queue::requeue(db, &requeued, &back).await, Ok(Settled::Written(_))));
    })
    .await;
    assert_eq!(scans, [0, 0], "scans of {INDEXES:?}");
}

#[tokio::test]
async fn a_claim_reads_the_held_jobs_once_and_a_success_does_not() {
    let world = World::new().await;
    world.relay("one").await;
    let job = world.fetch().await;
    let relay_id = SyncPayload::parse(&job.payload).unwrap().relay_id;
    let instances = &world.context.instances;
    let mut lease = None;
    let scans_of_claim = scans_of(&world, async |db| {
        let request = ClaimRequest { relay_id, job: job.clone() };
        lease = provision::claim(db, &[request], instances).await.unwrap().pop();
    })
    .await;
    assert_eq!(scans_of_claim, [1, 0], "scans of {INDEXES:?}: the calls in flight are counted");
    let Some(Claim::Ready(lease)) = lease else { panic!("{lease:?}") };
    let (attempt, sent) = (Attempt::default(), json!({ "host": "one.test" }));
    let completion = Completion { job, lease: *lease, attempt, sent };
    let scans = scans_of(&world, async |db| {
        let completed = provision::complete(db, &[completion], instances).await.unwrap();
        assert!(matches!(completed[..], [Completed::Written { .. }]), "{completed:?}");
    })
    .await;
    assert_eq!(scans, [0, 0], "scans of {INDEXES:?}");
}
