//! Reconcile: what is pending and has no job gets one.

use std::time::Duration;

use tender::demo::zooid::Fault;
use tender_jobs::{
    provision::{Claim, relay::SyncState},
    queue::JobState,
};
use tender_workers::provision::sync_relay::Outcome;

use crate::support::{World, settings};

async fn lose_jobs(world: &World) {
    sqlx::query("delete from apalis.jobs").execute(&world.db).await.unwrap();
}

#[tokio::test]
async fn a_lost_job_is_made_again() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    lose_jobs(&world).await;
    assert_eq!(world.reconcile().await, 1);
    assert_eq!(world.reconcile().await, 0, "it has a job now");
    let job = world.job().await;
    assert_eq!(
        (job.summary.state, job.summary.attempts, job.summary.priority),
        (JobState::Waiting, 0, 0)
    );
    assert!(job.payload.contains("reconcile"));
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.reload(&relay).await.synced);
    assert_eq!(world.reconcile().await, 0);
}

#[tokio::test]
async fn waiting_fetched_and_running_jobs_are_left_alone() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    assert_eq!(world.reconcile().await, 0, "waiting");
    let job = world.fetch().await;
    assert_eq!(world.reconcile().await, 0, "fetched");
    assert!(matches!(world.claim(&job, &relay.id).await, Claim::Ready(_)));
    assert_eq!(world.reconcile().await, 0, "running");
    world.expire_leases().await;
    assert_eq!(
        world.reconcile().await,
        0,
        "running until it is rescued, so that crashes are counted"
    );
}

#[tokio::test]
async fn a_lost_retry_goes_on_with_its_count_and_its_delay() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    world.zooid.plan(None, Fault::Status(500, None), Some(3));
    for _ in 0..3 {
        world.make_due().await;
        world.attempt().await;
    }
    let before = world.reload(&relay).await;
    lose_jobs(&world).await;
    assert_eq!(world.reconcile().await, 1);
    let job = world.job().await;
    assert_eq!((job.summary.state, job.summary.attempts), (JobState::Retrying, 3));
    assert_eq!(Some(job.summary.run_at), before.retry_at);
    world.make_due().await;
    assert_eq!(world.fetch().await.attempt, 4);
}

#[tokio::test]
async fn a_relay_that_gave_up_for_a_transient_reason_starts_afresh_after_its_rest() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    world.zooid.plan(None, Fault::Status(500, None), Some(7));
    for _ in 0..7 {
        world.make_due().await;
        world.attempt().await;
    }
    assert_eq!(world.reload(&relay).await.sync_state(), SyncState::GaveUp);
    assert_eq!(world.reconcile().await, 0, "it rests");
    sqlx::query("update relay set exhausted_at = now() - interval '21000 s'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(world.reconcile().await, 0, "it rests still");
    sqlx::query("update relay set exhausted_at = now() - interval '21601 s'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(world.reconcile().await, 1);
    let revived = world.reload(&relay).await;
    assert_eq!((revived.attempts, revived.exhausted_at), (0, None));
    world.make_due().await;
    let job = world.fetch().await;
    assert_eq!(job.attempt, 1);
    assert_eq!(
        tender_workers::provision::sync_relay::attempt(&world.context, &job).await,
        Outcome::Synced
    );
}

#[tokio::test]
async fn a_rest_of_zero_is_for_ever() {
    let mut settings = settings();
    settings.exhausted_after = Duration::ZERO;
    let world = World::with(settings, |_| {}).await;
    world.relay("alpha").await;
    lose_jobs(&world).await;
    sqlx::query("update relay set exhausted_at = now() - interval '1 year', failure_kind = 'transient', sync_error = 'x'")
        .execute(&world.db).await.unwrap();
    assert_eq!(world.reconcile().await, 0);
}

#[tokio::test]
async fn it_works_in_pages_and_misses_nobody() {
    let world = World::new().await;
    sqlx::query(
        "insert into relay (id, tenant_pubkey, subdomain, zooid_domain, schema, policy_public_read,
             policy_public_write, policy_public_join, policy_strip_signatures, groups_enabled,
             management_enabled, members_can_invite, blossom_enabled, livekit_enabled, push_enabled)
         select gen_random_uuid()::text, repeat('ab', 32), 'r' || n, 'zooid.test', 's' || n,
             true, false, false, false, true, true, true, false, false, true
         from generate_series(1, 2500) n",
    )
    .execute(&world.db)
    .await
    .unwrap();
    assert_eq!(world.reconcile().await, 2500);
    assert_eq!(world.reconcile().await, 0);
}

#[tokio::test]
async fn many_at_once_make_one_job_per_relay() {
    let world = World::new().await;
    for number in 0..50 {
        world.relay(&format!("relay-{number}")).await;
    }
    lose_jobs(&world).await;
    let running: Vec<_> = (0..4)
        .map(|_| {
            let db = world.db.clone();
            tokio::spawn(async move {
                tender_workers::provision::reconcile(&db, Duration::ZERO).await.unwrap()
            })
        })
        .collect();
    for one in running {
        one.await.unwrap();
    }
    world.reconcile().await;
    assert_eq!(world.jobs().await.len(), 50);
}
