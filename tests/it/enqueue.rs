//! One waiting job per relay: what a mutation does to the job that is there.

use tender::demo::zooid::Fault;
use tender_jobs::{
    provision::{self, Claim, relay},
    queue::{self, JobState, NewJob, Settled},
};

use crate::support::{World, by, patiently};

#[tokio::test]
async fn changes_share_the_job_that_waits() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let job = world.job().await;
    world.rename(&relay, "one").await;
    world.rename(&relay, "two").await;
    let same = world.job().await;
    assert_eq!(same.summary.id, job.summary.id);
    assert!(same.payload.contains("update"));
}

#[tokio::test]
async fn a_change_makes_a_waiting_retry_due_now_with_a_fresh_count() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    world.zooid.plan(None, Fault::Status(500, None), Some(1));
    world.attempt().await;
    assert!(world.try_fetch().await.is_none());
    let changed = world.rename(&relay, "new").await;
    assert_eq!((changed.attempts, changed.sync_error.as_str()), (0, ""));
    let job = world.job().await;
    assert_eq!((job.summary.state, job.summary.attempts), (JobState::Waiting, 0));
    assert_eq!(world.fetch().await.attempt, 1);
}

#[tokio::test]
async fn a_fetched_job_is_left_alone_and_reads_the_newest_state() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let fetched = world.fetch().await;
    world.rename(&relay, "newest").await;
    assert_eq!(world.job().await.summary.state, JobState::Queued);
    tender_workers::provision::sync_relay::attempt(&world.context, &fetched).await;
    let relay = world.reload(&relay).await;
    assert!(relay.synced && relay.synced_generation == 2);
    assert_eq!(world.zooid.documents()[relay.id.as_str()]["info"]["name"], "newest");
}

#[tokio::test]
async fn a_change_after_the_claim_gets_a_job_of_its_own() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let job = world.fetch().await;
    assert!(matches!(world.claim(&job, &relay.id).await, Claim::Ready(_)));
    world.rename(&relay, "one").await;
    world.rename(&relay, "two").await;
    assert_eq!(world.jobs().await.len(), 2);
}

#[tokio::test]
async fn a_tenants_change_goes_before_an_operators_and_reconciles() {
    let world = World::new().await;
    let first = world.synced_relay("first").await;
    let second = world.synced_relay("second").await;
    let third = world.synced_relay("third").await;
    sqlx::query("update relay set generation = 2 where id = $1")
        .bind(first.id.as_str())
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(world.reconcile().await, 1);
    relay::request_sync(&world.db, &second.id, &by()).await.unwrap();
    world.rename(&third, "x").await;
    world.make_due().await;
    let mut order = Vec::new();
    while let Some(job) = world.try_fetch().await {
        order.push(provision::SyncPayload::parse(&job.payload).unwrap().relay_id);
    }
    assert_eq!(order, [third.id, second.id, first.id]);
}

#[tokio::test]
async fn an_update_of_a_waiting_job_notifies_too() {
    let world = World::new().await;
    let mut listener = sqlx::postgres::PgListener::connect_with(&world.db).await.unwrap();
    listener.listen(queue::CHANNEL).await.unwrap();
    let relay = world.relay("alpha").await;
    world.rename(&relay, "again").await;
    for _ in ["the insert", "the update"] {
        let notification = patiently("a notification", listener.recv()).await.unwrap();
        let body: serde_json::Value = serde_json::from_str(notification.payload()).unwrap();
        assert_eq!(body["job_type"], "sync-relay");
    }
}

fn tick() -> NewJob {
    NewJob::new(provision::RECONCILE, &serde_json::json!({ "v": 1 })).key("reconcile@60")
}

#[tokio::test]
async fn a_tick_is_inserted_once_however_many_ask() {
    let world = World::new().await;
    let asked = (0..20).map(|_| {
        let db = world.db.clone();
        tokio::spawn(async move { queue::enqueue(&db, &[tick()]).await.unwrap().len() })
    });
    let mut inserted = 0;
    for asked in asked {
        inserted += asked.await.unwrap();
    }
    assert_eq!(inserted, 1);
    // Still so when it has run: a finished tick keeps its key.
    queue::register(&world.db, "reconcile-1", provision::RECONCILE, "test").await.unwrap();
    let job =
        queue::fetch(&world.db, "reconcile-1", provision::RECONCILE, 1).await.unwrap().remove(0);
    assert_eq!(queue::start(&world.db, &job).await.unwrap(), Settled::Written(()));
    queue::finish(&world.db, &job, &serde_json::json!({})).await.unwrap();
    assert!(queue::enqueue(&world.db, &[tick()]).await.unwrap().is_empty());
}
