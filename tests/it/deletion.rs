//! Deleting a relay: zooid first, then the row.

use tender::demo::zooid::Fault;
use tender_jobs::{
    provision::{
        Verdict, activity,
        relay::{self, MutationError, Status},
    },
    queue::JobState,
};
use tender_workers::provision::sync_relay::Outcome;

use crate::support::{World, by};

#[tokio::test]
async fn a_deleted_relay_is_gone_on_both_sides_and_keeps_its_history() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let requested = relay::delete(&world.db, &relay.id, &by()).await.unwrap();
    assert_eq!((requested.relay.status, requested.changed), (Status::Deleting, true));
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.zooid.is_empty());
    assert!(relay::find(&world.db, &relay.id).await.unwrap().is_none());
    let records = activity::of_relay(&world.db, &relay.id, None, 10).await.unwrap();
    let kinds: Vec<_> = records.iter().map(|record| record.activity_type.as_str()).collect();
    let expected = ["complete_relay_sync", "delete_relay", "complete_relay_sync", "create_relay"];
    assert_eq!(kinds, expected);
    assert_eq!(records[0].detail["method"], "DELETE");
    assert!(world.jobs().await.iter().all(|job| job.summary.state == JobState::Done));
    let summary = relay::summary(&world.db).await.unwrap();
    assert_eq!((summary.total, summary.inactive), (0, 0));
}

#[tokio::test]
async fn the_host_is_free_only_when_zooid_has_let_go_of_it() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    relay::delete(&world.db, &relay.id, &by()).await.unwrap();
    world.zooid.plan(None, Fault::Status(500, None), Some(1));
    assert!(matches!(world.attempt().await, Outcome::Failed(Verdict::RetryAt(_))));
    let change = relay::Change { subdomain: Some("alpha".to_owned()), ..Default::default() };
    let domains = [crate::support::DOMAIN.to_owned()];
    let tenant = relay.tenant_pubkey.clone();
    let new = relay::NewRelay::parse(tenant, &change, crate::support::DOMAIN, &domains).unwrap();
    let taken = relay::create(&world.db, &new, &by()).await;
    assert!(matches!(taken, Err(MutationError::HostTaken(_))), "{taken:?}");
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    relay::create(&world.db, &new, &by()).await.unwrap();
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(world.zooid.len(), 1);
}

#[tokio::test]
async fn a_relay_that_zooid_does_not_have_is_deleted_too() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    relay::delete(&world.db, &relay.id, &by()).await.unwrap();
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(relay::find(&world.db, &relay.id).await.unwrap().is_none());
    assert!(world.zooid.is_empty());
}

#[tokio::test]
async fn a_relay_that_is_being_deleted_changes_no_more() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    relay::delete(&world.db, &relay.id, &by()).await.unwrap();
    let change = relay::Change { info_name: Some("x".to_owned()), ..Default::default() };
    let updated = relay::update(&world.db, &relay.id, &change, &by()).await;
    assert!(matches!(updated, Err(MutationError::Deleting(_))), "{updated:?}");
    let activated = relay::set_status(&world.db, &relay.id, Status::Active, &by()).await;
    assert!(matches!(activated, Err(MutationError::Deleting(_))), "{activated:?}");
    let again = relay::delete(&world.db, &relay.id, &by()).await.unwrap();
    assert!(!again.changed);
    assert_eq!(world.attempt().await, Outcome::Synced);
}

#[tokio::test]
async fn a_job_whose_relay_is_deleted_while_it_runs_ends() {
    for succeeds in [true, false] {
        let world = World::new().await;
        let relay = world.relay("alpha").await;
        let job = world.fetch().await;
        let tender_jobs::provision::Claim::Ready(lease) = world.claim(&job, &relay.id).await else {
            panic!("no lease");
        };
        sqlx::query("delete from relay").execute(&world.db).await.unwrap();
        if succeeds {
            let completed = world.complete(&job, &lease).await;
            assert_eq!(completed, tender_jobs::provision::Completed::Gone);
        } else {
            let failure = tender_jobs::provision::Failure::new(
                tender_jobs::provision::relay::FailureKind::Transient,
                "made up",
            );
            world.fail(&job, &lease, &failure).await;
        }
        assert_eq!(world.job().await.summary.state, JobState::Done, "succeeds: {succeeds}");
    }
}

#[tokio::test]
async fn a_deletion_that_gave_up_starts_over_when_it_is_requested_again() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    relay::delete(&world.db, &relay.id, &by()).await.unwrap();
    world.zooid.plan(None, Fault::Status(400, None), Some(1));
    assert_eq!(world.attempt().await, Outcome::Failed(Verdict::GaveUp));
    assert!(relay::delete(&world.db, &relay.id, &by()).await.unwrap().changed);
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.zooid.is_empty());
}
