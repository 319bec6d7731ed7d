//! What an operator does to one job.

use tender::demo::zooid::Fault;
use tender_jobs::{
    PRUNE,
    provision::{
        Claim, Failure,
        relay::{FailureKind, SyncState},
    },
    queue::{self, JobFilter, JobState, NewJob},
    steer::{self, SteerError, Steered, Verb},
};
use tender_workers::provision::sync_relay::Outcome;

use crate::support::{World, begun, by};

#[tokio::test]
async fn a_killed_job_is_retried_as_a_new_job_of_its_relay() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    world.zooid.plan(None, Fault::Status(422, None), Some(1));
    world.attempt().await;
    let killed = world.job().await;
    let steered = steer::retry(&world.db, &killed.summary.id, &by()).await.unwrap();
    assert_eq!(steered, Steered::RelayRequeued(relay.id.clone()));
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.reload(&relay).await.synced);
}

#[tokio::test]
async fn a_waiting_retry_is_retried_now() {
    let world = World::new().await;
    world.relay("alpha").await;
    world.zooid.plan(None, Fault::Status(500, None), Some(1));
    world.attempt().await;
    let job = world.job().await;
    steer::retry(&world.db, &job.summary.id, &by()).await.unwrap();
    assert_eq!(world.attempt().await, Outcome::Synced);
}

#[tokio::test]
async fn a_recurring_job_that_failed_is_retried_as_it_is() {
    let world = World::new().await;
    let job = NewJob::new(PRUNE, &serde_json::json!({ "v": 1 })).key("prune@1");
    queue::enqueue(&world.db, &[job]).await.unwrap();
    queue::register(&world.db, "prune-1", PRUNE, "test").await.unwrap();
    let job = queue::fetch(&world.db, "prune-1", PRUNE, 1).await.unwrap().remove(0);
    queue::kill(&world.db, &job, "no disk").await.unwrap();
    assert_eq!(steer::retry(&world.db, &job.id, &by()).await.unwrap(), Steered::Requeued);
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Waiting);
}

#[tokio::test]
async fn a_cancelled_job_stays_cancelled_and_its_relay_says_so() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let job = world.job().await;
    assert_eq!(steer::cancel(&world.db, &job.summary.id, &by()).await.unwrap(), Steered::Cancelled);
    let relay = world.reload(&relay).await;
    assert_eq!(
        (relay.sync_state(), relay.sync_error.as_str()),
        (SyncState::GaveUp, "cancelled by test")
    );
    assert_eq!(relay.failure_kind, Some(FailureKind::Permanent));
    assert_eq!(world.history(&relay).await, ["create_relay", "fail_relay_sync"]);
    assert_eq!(world.reconcile().await, 0);
    assert!(world.try_fetch().await.is_none());
    // The next change goes through.
    world.rename(&relay, "x").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
}

#[tokio::test]
async fn a_cancelled_change_stays_cancelled_whatever_becomes_of_an_older_attempt() {
    for end in ["succeeds", "fails", "dies"] {
        let world = World::new().await;
        let relay = world.relay("alpha").await;
        let older = world.fetch().await;
        let Claim::Ready(lease) = world.claim(&older, &relay.id).await else { panic!("no lease") };
        world.rename(&relay, "newer").await;
        let newer = world.jobs().await.into_iter().find(|job| job.key.is_some()).unwrap();
        steer::cancel(&world.db, &newer.summary.id, &by()).await.unwrap();
        match end {
            "succeeds" => {
                world.complete(&older, &lease).await;
            }
            "fails" => {
                let failure = Failure::new(FailureKind::Transient, "made up");
                world.fail(&older, &lease, &failure).await;
            }
            _ => {
                world.expire_leases().await;
                world.rescue().await;
                world.beat().await;
                assert_eq!(world.attempt().await, Outcome::Nothing);
            }
        }
        world.make_due().await;
        assert!(world.try_fetch().await.is_none(), "{end}");
        assert_eq!(world.reconcile().await, 0, "{end}");
        let found = world.reload(&relay).await;
        let state = (found.sync_state(), found.sync_error.as_str());
        assert_eq!(state, (SyncState::GaveUp, "cancelled by test"), "{end}");
        world.expire_leases().await;
        world.rename(&relay, "next").await;
        assert_eq!(world.attempt().await, Outcome::Synced, "{end}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let id = world.job().await.summary.id;
    assert!(matches!(steer::retry(&world.db, &id, &by()).await, Err(SteerError::State { .. })));
    world.fetch().await;
    assert!(matches!(steer::cancel(&world.db, &id, &by()).await, Err(SteerError::State { .. })));
    assert_eq!(world.reload(&relay).await.sync_state(), SyncState::Pending);
    assert!(matches!(
        steer::cancel(&world.db, "nothing", &by()).await,
        Err(SteerError::NotFound(_))
    ));
}

#[tokio::test]
async fn retry_all_reaches_every_page_to_the_end() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    // More than any page, most of them of relays that are gone, and the relay's own among the oldest.
    sqlx::query(
        "with own as (update apalis.jobs set status = 'Killed', idempotency_key = null,
                             done_at = now() - interval '2 days' returning id)
         insert into apalis.jobs (id, job_type, job, status, done_at, metadata, idempotency_key)
         select n || '-relay', 'sync-relay',
                convert_to('{\"v\": 1, \"relay_id\": \"' || gen_random_uuid() || '\"}', 'UTF8'),
                'Killed', now() - make_interval(secs => n), null, null
         from generate_series(1, 10500) n
         union all
         select n || '-odd', 'odd', '{}', 'Killed', now() - make_interval(secs => n % 100),
                hstore('key', 'k' || n % 1500), case when n = 1 then 'k7' end
         from generate_series(1, 1800) n",
    )
    .execute(&world.db)
    .await
    .unwrap();
    // One key is held by a killed job, one by a job that waits.
    let waiting = NewJob::new("odd", &serde_json::json!({})).key("k8");
    queue::enqueue(&world.db, &[waiting]).await.unwrap();
    let retried = steer::matching(
        &world.db,
        Verb::Retry,
        &JobFilter::default(),
        steer::Bounds::NONE,
        &by(),
        begun(&world).await,
    )
    .await
    .unwrap();
    assert_eq!(retried.done, 1 + 1499, "the relay, and one job for each key that no other job has");
    let status = queue::status(&world.db, &["odd"]).await.unwrap().remove(0);
    assert_eq!(status.waiting, 1500);
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.reload(&relay).await.synced);
}
