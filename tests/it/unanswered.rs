//! Calls that zooid applies after we have given them up (`docs/adr/0014-unanswered-calls.md`).

use std::time::Duration;

use serde_json::Value;
use tender::demo::zooid::{Fault, Gate};
use tender_jobs::{
    provision::{
        Verdict,
        relay::{self, Relay},
    },
    queue::JobState,
};
use tender_workers::provision::sync_relay::Outcome;

use crate::support::{World, by, eventually};

/// A relay that zooid has, and whose next call is applied when the gate opens, long after we gave it up.
async fn with_late_call() -> (World, Relay, Gate) {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let gate = Gate::default();
    world.zooid.plan(None, Fault::Late(gate.clone()), Some(1));
    world.rename(&relay, "one").await;
    assert!(matches!(world.attempt().await, Outcome::Failed(Verdict::RetryAt(_))));
    (world, relay, gate)
}

fn name_on_zooid(world: &World, relay: &Relay) -> Value {
    world.zooid.documents()[relay.id.as_str()]["info"]["name"].clone()
}

/// Applies the late call, and waits until it is applied.
async fn land(world: &World, relay: &Relay, gate: &Gate, name: &str) {
    gate.open();
    eventually("the late call is applied", async || name_on_zooid(world, relay) == name).await;
}

/// Lets the time pass after which no earlier call may land.
async fn pass_confirm_time(world: &World) {
    sqlx::query(
        "update relay set confirm_at = now() - interval '1 s' where confirm_at is not null",
    )
    .execute(&world.db)
    .await
    .unwrap();
    world.make_due().await;
}

#[tokio::test]
async fn a_call_that_is_applied_after_a_newer_one_is_overwritten() {
    let (world, relay, gate) = with_late_call().await;
    world.rename(&relay, "two").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(name_on_zooid(&world, &relay), "two");
    land(&world, &relay, &gate, "one").await;
    let found = world.reload(&relay).await;
    assert!(found.synced && found.confirm_at.is_some(), "{found:?}");
    let job = world.jobs().await.remove(0);
    assert_eq!(job.summary.state, JobState::Waiting);
    assert_eq!(Some(job.summary.run_at), found.confirm_at, "it waits for the confirmation");
    pass_confirm_time(&world).await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(name_on_zooid(&world, &relay), "two");
    assert_eq!(world.reload(&relay).await.confirm_at, None);
    assert!(world.try_fetch().await.is_none(), "confirmed once, and no more");
}

#[tokio::test]
async fn the_next_change_does_not_wait_for_the_confirmation() {
    let (world, relay, _gate) = with_late_call().await;
    world.rename(&relay, "two").await;
    assert_eq!(world.attempt().await, Outcome::Synced, "due at once");
    world.rename(&relay, "three").await;
    assert_eq!(world.attempt().await, Outcome::Synced, "it takes the place of the confirmation");
    assert_eq!(name_on_zooid(&world, &relay), "three");
    let found = world.reload(&relay).await;
    assert!(found.synced && found.confirm_at.is_some(), "still to be confirmed: {found:?}");
    assert_eq!(world.jobs().await.iter().filter(|job| job.key.is_some()).count(), 1);
}

#[tokio::test]
async fn a_success_on_the_usual_path_needs_no_confirmation() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    assert_eq!(relay.confirm_at, None);
    world.zooid.refuse(true);
    world.rename(&relay, "one").await;
    assert!(matches!(world.attempt().await, Outcome::Failed(Verdict::RetryAt(_))));
    assert_eq!(world.reload(&relay).await.confirm_at, None, "nothing was sent");
}

#[tokio::test]
async fn a_process_that_dies_during_its_call_leaves_a_confirmation() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    world.rename(&relay, "one").await;
    let job = world.fetch().await;
    assert!(matches!(world.claim(&job, &relay.id).await, tender_jobs::provision::Claim::Ready(_)));
    world.expire_leases().await;
    assert_eq!(world.rescue().await.requeued, 1);
    world.beat().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    let found = world.reload(&relay).await;
    assert!(found.synced && found.confirm_at.is_some(), "{found:?}");
    pass_confirm_time(&world).await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(world.reload(&relay).await.confirm_at, None);
}

#[tokio::test]
async fn a_confirmation_that_lost_its_job_gets_another() {
    let (world, relay, gate) = with_late_call().await;
    world.rename(&relay, "two").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    sqlx::query("delete from apalis.jobs").execute(&world.db).await.unwrap();
    land(&world, &relay, &gate, "one").await;
    assert_eq!(world.reconcile().await, 1);
    let due = world.job().await.summary.run_at;
    assert_eq!(Some(due), world.reload(&relay).await.confirm_at);
    pass_confirm_time(&world).await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(name_on_zooid(&world, &relay), "two");
    assert_eq!(world.reconcile().await, 0);
}

#[tokio::test]
async fn a_confirmation_that_fails_is_seen_and_retried() {
    let (world, relay, _gate) = with_late_call().await;
    world.rename(&relay, "two").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    pass_confirm_time(&world).await;
    world.zooid.plan(None, Fault::Status(500, None), Some(1));
    assert!(matches!(world.attempt().await, Outcome::Failed(Verdict::RetryAt(_))));
    let found = world.reload(&relay).await;
    assert!(!found.synced && found.attempts == 1 && !found.sync_error.is_empty(), "{found:?}");
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(world.reload(&relay).await.confirm_at, None);
}

#[tokio::test]
async fn two_creations_that_both_succeed_give_one_identity() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let gate = Gate::default();
    world.zooid.plan(None, Fault::Late(gate.clone()), Some(1));
    assert!(matches!(world.attempt().await, Outcome::Failed(Verdict::RetryAt(_))));
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    let secret = |world: &World| world.zooid.documents()[relay.id.as_str()]["secret"].clone();
    let before = secret(&world);
    // The abandoned call comes when the relay is gone, and creates it again.
    world.zooid.lose(relay.id.as_str());
    gate.open();
    eventually("the late call is applied", async || world.zooid.len() == 1).await;
    assert_eq!(secret(&world), before);
    pass_confirm_time(&world).await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(secret(&world), before);
}

#[tokio::test]
async fn an_operators_cancellation_of_a_confirmation_holds() {
    let (world, relay, _gate) = with_late_call().await;
    world.rename(&relay, "two").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    let job = world.jobs().await.remove(0);
    tender_jobs::steer::cancel(&world.db, &job.summary.id, &by()).await.unwrap();
    assert_eq!(world.reconcile().await, 0);
    let found = world.reload(&relay).await;
    assert!(found.synced && found.confirm_at.is_none());
}

#[tokio::test]
async fn a_deleted_relay_stays_deleted_although_a_late_call_creates_it() {
    let (world, relay, gate) = with_late_creation().await;
    relay::delete(&world.db, &relay.id, &by()).await.unwrap();
    assert_eq!(world.attempt().await, Outcome::Synced);
    let found = world.reload(&relay).await;
    assert!(found.confirm_at.is_some(), "the row and its host are kept: {found:?}");
    gate.open();
    eventually("the late call is applied", async || world.zooid.len() == 1).await;
    pass_confirm_time(&world).await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.zooid.is_empty());
    assert!(relay::find(&world.db, &relay.id).await.unwrap().is_none());
}

/// A relay whose creation was not answered.
async fn with_late_creation() -> (World, Relay, Gate) {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let gate = Gate::default();
    world.zooid.plan(None, Fault::Late(gate.clone()), Some(1));
    assert!(matches!(world.attempt().await, Outcome::Failed(Verdict::RetryAt(_))));
    (world, relay, gate)
}

#[tokio::test]
async fn the_time_after_which_a_call_is_confirmed_is_a_minute() {
    let (world, relay, _gate) = with_late_call().await;
    let found = world.reload(&relay).await;
    let failed_at = world.records(&relay).await.pop().unwrap().created_at;
    let wait = (found.confirm_at.unwrap() - failed_at).to_std().unwrap();
    assert_eq!(wait, Duration::from_mins(1));
}
