//! A relay whose file zooid cannot read is replaced, and nothing else is.

use nostr::key::Keys;
use tender::demo::zooid::Fault;
use tender_jobs::provision::relay::Relay;
use tender_workers::provision::sync_relay::Outcome;

use crate::support::World;

/// Runs so many attempts, all of which fail.
async fn fail(world: &World, attempts: usize) {
    for _ in 0..attempts {
        world.make_due().await;
        assert!(matches!(world.attempt().await, Outcome::Failed(_)));
    }
}

async fn next(world: &World) -> Outcome {
    world.make_due().await;
    world.attempt().await
}

fn puts(world: &World) -> usize {
    world.zooid.calls().iter().filter(|call| call.method == "PUT").count()
}

async fn note(world: &World, relay: &Relay) -> String {
    let detail = world.records(relay).await.pop().unwrap().detail;
    assert_eq!(detail["method"], "PUT");
    detail["note"].as_str().unwrap_or_default().to_owned()
}

fn identity(world: &World, relay: &Relay) -> String {
    let secret = world.zooid.documents()[relay.id.as_str()]["secret"].clone();
    Keys::parse(secret.as_str().unwrap()).unwrap().public_key().to_hex()
}

#[tokio::test]
async fn a_broken_file_is_replaced_after_the_third_failure_and_keeps_its_identity() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let before = identity(&world, &relay);
    world.zooid.break_file(relay.id.as_str());
    world.rename(&relay, "newer").await;
    fail(&world, 3).await;
    assert_eq!(puts(&world), 0);
    assert_eq!(next(&world).await, Outcome::Synced);
    assert_eq!(world.zooid.documents()[relay.id.as_str()]["info"]["name"], "newer");
    assert_eq!(identity(&world, &relay), before);
    let note = note(&world, &relay).await;
    assert!(note.contains("could not read") && note.contains(&before), "{note}");
}

#[tokio::test]
async fn a_file_that_broke_while_it_was_created_is_replaced() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    world.zooid.break_file(relay.id.as_str());
    fail(&world, 3).await;
    assert_eq!(next(&world).await, Outcome::Synced);
    assert_eq!(puts(&world), 1);
    assert!(note(&world, &relay).await.contains("could not read"));
}

#[tokio::test]
async fn nothing_is_replaced_while_zooid_fails_for_every_relay() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    world.zooid.break_file(relay.id.as_str());
    world.rename(&relay, "newer").await;
    world.zooid.plan(None, Fault::Status(500, None), None);
    fail(&world, 5).await;
    assert_eq!(puts(&world), 0);
}

#[tokio::test]
async fn nothing_is_replaced_if_zooid_can_read_the_file_or_a_proxy_answers() {
    for fault in [Fault::Status(500, None), Fault::Proxy(502)] {
        let world = World::new().await;
        let relay = world.synced_relay("alpha").await;
        world.rename(&relay, "newer").await;
        for _ in 0..5 {
            // Only the PATCH fails; the members are listed.
            world.zooid.plan(Some(relay.id.as_str()), fault.clone(), Some(1));
            fail(&world, 1).await;
        }
        assert_eq!(puts(&world), 0);
    }
}
