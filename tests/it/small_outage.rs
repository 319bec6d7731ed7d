//! Outages that are too small for the breaker, and a key that zooid refuses.

use std::{sync::Arc, time::Duration};

use nostr::key::Keys;
use tender::demo::zooid::Fault;
use tender_jobs::{
    provision::{
        Verdict,
        instance::{self, BreakerState},
        relay::{Relay, SyncState},
    },
    queue,
};
use tender_workers::{
    provision::{
        Context,
        sync_relay::{self, Outcome},
        zooid::Zooid,
    },
    runtime::Listen,
};

use crate::support::{World, by, settings, zooid_settings};

/// Fails every attempt of the relays, by turns, until all have given up.
async fn exhaust(world: &World, relays: &[Relay]) {
    for _ in 0..7 {
        world.make_due().await;
        for _ in relays {
            assert!(matches!(world.attempt().await, Outcome::Failed(_)));
        }
    }
    for relay in relays {
        assert_eq!(world.reload(relay).await.sync_state(), SyncState::GaveUp);
    }
}

#[tokio::test]
async fn relays_that_gave_up_in_a_small_outage_go_again_after_the_first_answer() {
    let world = World::new().await;
    let relays = [world.relay("one").await, world.relay("two").await];
    world.zooid.plan(None, Fault::Status(500, None), None);
    exhaust(&world, &relays).await;
    assert_eq!(world.reconcile().await, 0, "they rest for six hours");
    world.zooid.heal();
    world.relay("three").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    let soon = queue::now(&world.db).await.unwrap() + Duration::from_secs(2);
    let waiting: Vec<_> = world.jobs().await.into_iter().filter(|job| job.key.is_some()).collect();
    assert_eq!(waiting.len(), 2);
    assert!(waiting.iter().all(|job| job.summary.run_at <= soon && job.summary.attempts == 0));
    world.make_due().await;
    for _ in &relays {
        assert_eq!(world.attempt().await, Outcome::Synced);
    }
    for relay in &relays {
        assert_eq!(world.reload(relay).await.sync_state(), SyncState::Synced);
    }
}

#[tokio::test]
async fn a_relay_that_fails_although_its_instance_answers_rests() {
    let world = World::new().await;
    let poison = world.relay("poison").await;
    world.zooid.plan(Some(poison.id.as_str()), Fault::Status(500, None), None);
    let healthy = |number: u32| format!("healthy-{number}");
    for number in 0..7 {
        world.make_due().await;
        assert!(matches!(world.attempt().await, Outcome::Failed(_)));
        world.relay(&healthy(number)).await;
        assert_eq!(world.attempt().await, Outcome::Synced);
    }
    assert_eq!(world.reload(&poison).await.sync_state(), SyncState::GaveUp);
    world.relay("another").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(world.reload(&poison).await.sync_state(), SyncState::GaveUp);
    world.make_due().await;
    assert!(world.try_fetch().await.is_none());
}

#[tokio::test]
async fn a_refused_key_is_one_fault_that_spends_no_attempt_and_ends_by_itself() {
    let mut right = None;
    let world = World::with(settings(), |zooid| {
        right = Some(std::mem::replace(&mut zooid.robot, Keys::generate()));
    })
    .await;
    let relays = [world.relay("one").await, world.relay("two").await];
    for _ in &relays {
        let outcome = world.attempt().await;
        assert!(
            matches!(outcome, Outcome::Failed(Verdict::Held(_)) | Outcome::Held),
            "{outcome:?}"
        );
    }
    let found = instance::list(&world.db).await.unwrap().remove(0);
    assert_eq!(found.breaker, BreakerState::Open);
    assert!(found.last_error.contains("add"), "{}", found.last_error);
    for relay in &relays {
        let relay = world.reload(relay).await;
        assert_eq!((relay.attempts, relay.sync_state()), (0, SyncState::Pending));
    }
    // The operator mends the key: the next probe is answered, and the other relay follows.
    let client = Zooid::new(zooid_settings(&world.zooid.url(), right.unwrap())).unwrap();
    let mended = Context::new(&world.db, Arc::new(client), settings(), &Listen::Pool);
    sqlx::query("update zooid_instance set retry_at = now()").execute(&world.db).await.unwrap();
    world.make_due().await;
    for _ in &relays {
        let job = world.fetch().await;
        assert_eq!(sync_relay::attempt(&mended, &job).await, Outcome::Synced);
        world.make_due().await;
    }
    assert_eq!(instance::list(&world.db).await.unwrap().remove(0).breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_relay_whose_outage_began_before_the_last_answer_goes_again_too() {
    let world = World::new().await;
    let relays = [world.relay("one").await];
    world.zooid.plan(None, Fault::Status(500, None), Some(1));
    assert!(matches!(world.attempt().await, Outcome::Failed(_)));
    world.relay("answered").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    world.zooid.plan(None, Fault::Status(500, None), None);
    for _ in 0..6 {
        world.make_due().await;
        assert!(matches!(world.attempt().await, Outcome::Failed(_)));
    }
    assert_eq!(world.reload(&relays[0]).await.sync_state(), SyncState::GaveUp);
    world.zooid.heal();
    world.relay("another").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(world.reload(&relays[0]).await.sync_state(), SyncState::Synced);
}

#[tokio::test]
async fn a_relay_whose_job_was_cancelled_in_an_outage_stays_cancelled() {
    let world = World::new().await;
    let relays = [world.relay("one").await];
    world.zooid.plan(None, Fault::Status(500, None), None);
    exhaust(&world, &relays).await;
    sqlx::query("update relay set exhausted_at = now() - interval '7 hours'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(world.reconcile().await, 1);
    let job = world.jobs().await.into_iter().find(|job| job.key.is_some()).unwrap();
    tender_jobs::steer::cancel(&world.db, &job.summary.id, &by()).await.unwrap();
    world.zooid.heal();
    world.relay("another").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    world.make_due().await;
    assert!(world.try_fetch().await.is_none());
    assert_eq!(world.reload(&relays[0]).await.sync_error, "cancelled by test");
}

#[tokio::test]
async fn a_process_with_a_wrong_key_does_not_stop_the_others() {
    let world = World::new().await;
    world.synced_relay("healthy").await;
    let strange = Zooid::new(zooid_settings(&world.zooid.url(), Keys::generate())).unwrap();
    let wrong = Context::new(&world.db, Arc::new(strange), settings(), &Listen::Pool);
    let relay = world.relay("one").await;
    let job = world.fetch().await;
    let outcome = sync_relay::attempt(&wrong, &job).await;
    assert!(matches!(outcome, Outcome::Failed(Verdict::RetryAt(_))), "{outcome:?}");
    assert_eq!(instance::list(&world.db).await.unwrap().remove(0).breaker, BreakerState::Closed);
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.reload(&relay).await.synced);
}
