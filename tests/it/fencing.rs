//! Leases and guards: who lost its job writes nothing.

use std::time::Duration;

use tender::demo::zooid::{Fault, Gate};
use tender_jobs::{
    provision::{
        Claim, Completed, Failure, Lease, Verdict,
        relay::{FailureKind, Relay},
    },
    queue::{self, Job, JobState, Requeue, Requeued, Settled},
};
use tender_workers::provision::sync_relay::{self, Outcome};

use crate::support::{Bracket, World, patiently};

async fn claimed(world: &World) -> (Relay, Job, Lease) {
    let relay = world.relay("alpha").await;
    let job = world.fetch().await;
    let Claim::Ready(lease) = world.claim(&job, &relay.id).await else { panic!("not claimed") };
    (relay, job, *lease)
}

fn failure() -> Failure {
    Failure::new(FailureKind::Transient, "late")
}

#[tokio::test]
async fn a_late_success_changes_nothing() {
    let world = World::new().await;
    let (relay, job, lease) = claimed(&world).await;
    // The worker stands still, is taken for dead, and another does its work.
    world.expire_leases().await;
    assert_eq!(world.rescue().await.requeued, 1);
    let other = world.another_worker().await;
    let again = world.fetch_as(&other).await.unwrap();
    assert_eq!((again.id.clone(), again.attempt), (job.id.clone(), 2));
    assert_eq!(sync_relay::attempt(&world.context, &again).await, Outcome::Synced);
    let settled = world.reload(&relay).await;

    let late = world.complete(&job, &lease).await;
    assert_eq!(late, Completed::LeaseLost);
    assert_eq!(world.fail(&job, &lease, &failure()).await, Settled::LeaseLost);
    let after = world.reload(&relay).await;
    assert_eq!(
        (after.synced, after.updated_at, after.sync_error),
        (true, settled.updated_at, String::new())
    );
    // The first worker may have sent its call: the relay is confirmed later.
    assert_eq!(world.job().await.summary.state, JobState::Waiting);
    assert_eq!(world.history(&relay).await, ["create_relay", "complete_relay_sync"]);
}

#[tokio::test]
async fn an_older_attempt_of_the_same_worker_cannot_settle_a_newer_one() {
    let world = World::new().await;
    let (relay, job, lease) = claimed(&world).await;
    world.expire_leases().await;
    world.rescue().await;
    // The same worker, alive after all, gets the job again.
    let again = world.fetch().await;
    assert_eq!((again.worker == job.worker, again.attempt), (true, 2));
    assert!(matches!(world.claim(&again, &relay.id).await, Claim::Ready(_)));
    let late = world.complete(&job, &lease).await;
    assert_eq!(late, Completed::LeaseLost);
    assert_eq!(queue::kill(&world.db, &job, "late").await.unwrap(), Settled::LeaseLost);
    assert!(!world.reload(&relay).await.synced);
}

#[tokio::test]
async fn a_job_that_was_given_back_cannot_be_claimed() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let job = world.fetch().await;
    assert_eq!(queue::release(&world.db, &world.worker).await.unwrap(), 1);
    assert!(matches!(world.claim(&job, &relay.id).await, Claim::Lost));
    let waiting = world.job().await;
    assert_eq!((waiting.summary.state, waiting.summary.attempts), (JobState::Waiting, 0));
    assert!(waiting.key.is_some());
}

#[tokio::test]
async fn a_busy_relay_snoozes_the_job_without_spending_an_attempt() {
    let world = World::new().await;
    let (relay, _running, _lease) = claimed(&world).await;
    world.rename(&relay, "newer").await;
    let (outcome, bracket) = Bracket::of(&world.db, world.attempt()).await;
    assert_eq!(outcome, Outcome::Snoozed);
    let waiting = world.jobs().await.into_iter().find(|job| job.key.is_some()).unwrap();
    assert_eq!((waiting.summary.state, waiting.summary.attempts), (JobState::Waiting, 0));
    assert_eq!(waiting.summary.lock_by, None);
    bracket.assert(waiting.summary.run_at, Duration::from_secs(2));
    assert!(world.zooid.calls().is_empty());
    assert_eq!(world.history(&relay).await, ["create_relay", "update_relay"]);
}

#[tokio::test]
async fn a_snooze_gives_way_to_a_newer_job() {
    let world = World::new().await;
    let (relay, running, _lease) = claimed(&world).await;
    world.rename(&relay, "newer").await;
    // The running job is snoozed (a hand may do so): its key is taken by the newer one.
    let how = Requeue::wait(Duration::from_secs(2));
    let settled = queue::requeue(&world.db, &running, &how).await.unwrap();
    assert_eq!(settled, Settled::Written(Requeued::Superseded));
    assert_eq!(world.job_by_id(&running.id).await.summary.state, JobState::Done);
}

#[tokio::test]
async fn a_failure_of_an_older_generation_is_superseded_and_says_nothing_about_the_newer() {
    let world = World::new().await;
    let (relay, job, lease) = claimed(&world).await;
    world.rename(&relay, "newer").await;
    let permanent = Failure::new(FailureKind::Permanent, "of the older");
    let settled = world.fail(&job, &lease, &permanent).await;
    assert_eq!(settled, Settled::Written(Verdict::Superseded));
    let relay = world.reload(&relay).await;
    assert_eq!((relay.sync_error.as_str(), relay.exhausted_at, relay.attempts), ("", None, 0));
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Done);
    assert_eq!(world.records(&relay).await.pop().unwrap().detail["superseded"], true);
    assert_eq!(world.attempt().await, Outcome::Synced);
}

#[tokio::test]
async fn a_failure_of_an_older_generation_without_a_newer_job_starts_over() {
    let world = World::new().await;
    let (relay, job, lease) = claimed(&world).await;
    world.rename(&relay, "newer").await;
    sqlx::query("delete from apalis.jobs where id <> $1")
        .bind(&job.id)
        .execute(&world.db)
        .await
        .unwrap();
    let settled = world.fail(&job, &lease, &failure()).await;
    assert!(matches!(settled, Settled::Written(Verdict::RetryAt(_))));
    let waiting = world.job().await;
    assert_eq!((waiting.summary.state, waiting.summary.attempts), (JobState::Waiting, 0));
    assert!(waiting.key.is_some());
    assert_eq!(world.attempt().await, Outcome::Synced);
}

#[tokio::test]
async fn a_job_deleted_while_it_runs_is_not_settled_and_reconcile_brings_the_relay_back() {
    let world = World::new().await;
    let (relay, job, lease) = claimed(&world).await;
    sqlx::query("delete from apalis.jobs").execute(&world.db).await.unwrap();
    let lost = world.complete(&job, &lease).await;
    assert_eq!(lost, Completed::LeaseLost);
    assert!(!world.reload(&relay).await.synced, "the relay's half is rolled back too");
    world.expire_leases().await;
    assert_eq!(world.reconcile().await, 1);
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
}

#[tokio::test]
async fn a_job_that_kills_its_process_ends_after_the_last_attempt() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    for crash in 1..=7 {
        let job = world.fetch().await;
        assert_eq!(job.attempt, crash);
        assert!(matches!(world.claim(&job, &relay.id).await, Claim::Ready(_)));
        world.expire_leases().await;
        assert_eq!(world.rescue().await.requeued, 1);
    }
    assert_eq!(world.attempt().await, Outcome::Failed(Verdict::GaveUp));
    let relay = world.reload(&relay).await;
    assert_eq!((relay.sync_error.as_str(), relay.attempts), ("the worker died in 7 attempts", 7));
    assert_eq!(world.job().await.summary.state, JobState::Killed);
    assert!(world.zooid.calls().is_empty());
}

#[tokio::test]
async fn a_second_request_is_not_made_without_the_lease() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    // The id exists, so that the attempt would patch after its post.
    world.zooid.plan(None, Fault::DropAfter, Some(1));
    world.attempt().await;
    world.make_due().await;
    let gate = Gate::default();
    world.zooid.plan(None, Fault::Hold(gate.clone()), Some(1));
    let job = world.fetch().await;
    let context = world.context.clone();
    let attempt = tokio::spawn(async move { sync_relay::attempt(&context, &job).await });
    patiently("the post is on its way", gate.reached(1)).await;
    // Somebody else takes the relay over.
    sqlx::query("update relay set lease_epoch = lease_epoch + 1").execute(&world.db).await.unwrap();
    gate.open();
    assert_eq!(attempt.await.unwrap(), Outcome::Unsettled);
    let methods: Vec<_> = world.zooid.calls().into_iter().map(|call| call.method).collect();
    assert_eq!(methods, ["POST", "POST"], "no patch");
    assert!(!world.reload(&relay).await.synced);
}

#[tokio::test]
async fn a_settle_needs_its_own_epoch() {
    let world = World::new().await;
    let (relay, job, lease) = claimed(&world).await;
    // The job's guard alone would let it through.
    sqlx::query("update relay set lease_epoch = lease_epoch + 1").execute(&world.db).await.unwrap();
    assert_eq!(world.complete(&job, &lease).await, Completed::LeaseLost);
    assert_eq!(world.fail(&job, &lease, &failure()).await, Settled::LeaseLost);
    assert!(!world.reload(&relay).await.synced);
    assert_eq!(world.job().await.summary.state, JobState::Running);
}

#[tokio::test]
async fn a_settle_needs_its_own_attempt() {
    let world = World::new().await;
    let (relay, job, lease) = claimed(&world).await;
    // The relay's guard alone would let it through.
    sqlx::query("update apalis.jobs set attempts = attempts + 1").execute(&world.db).await.unwrap();
    assert_eq!(world.complete(&job, &lease).await, Completed::LeaseLost);
    assert_eq!(world.fail(&job, &lease, &failure()).await, Settled::LeaseLost);
    assert!(!world.reload(&relay).await.synced);
    assert_eq!(world.history(&relay).await, ["create_relay"]);
}
