//! The stand-in for zooid keeps zooid's rules.

use std::time::Duration;

use tender::demo::zooid::{Fault, Gate};
use tender_workers::provision::{
    sync_relay::Outcome,
    zooid::{Zooid, ZooidSettings},
};

use crate::support::{World, eventually, patiently, settings};

/// A world whose client gives up at once, because the stand-in holds the answer.
async fn impatient() -> World {
    let short = |zooid: &mut ZooidSettings| zooid.timeout = Duration::from_millis(200);
    World::with(settings(), short).await
}

fn name(world: &World, id: &str) -> String {
    world.zooid.documents()[id]["info"]["name"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_whose_client_has_left_is_applied_all_the_same() {
    let world = impatient().await;
    let relay = world.relay("alpha").await;
    let gate = Gate::default();
    world.zooid.plan(None, Fault::Hold(gate.clone()), Some(1));
    assert!(matches!(world.attempt().await, Outcome::Failed(_)));
    assert_eq!((world.zooid.len(), world.zooid.in_flight()), (0, 0));
    gate.open();
    eventually("it is applied", async || world.zooid.len() == 1).await;
    let call = world.zooid.calls().remove(0);
    assert_eq!((call.status, call.relay_id.as_str()), (None, relay.id.as_str()));
    eventually("it created the relay", async || world.zooid.calls()[0].created).await;
}

#[tokio::test]
async fn a_late_change_undoes_a_newer_one() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let gate = Gate::default();
    world.zooid.plan(None, Fault::Late(gate.clone()), Some(1));
    let older = world.rename(&relay, "older").await;
    assert!(world.context.zooid.patch(&older).await.is_err());
    patiently("it was read", gate.reached(1)).await;
    let newer = world.rename(&relay, "newer").await;
    world.context.zooid.patch(&newer).await.unwrap();
    assert_eq!(name(&world, relay.id.as_str()), "newer");
    gate.open();
    eventually("it is applied", async || name(&world, relay.id.as_str()) == "older").await;
}

#[tokio::test]
async fn two_posts_of_one_id_at_the_same_time_both_succeed_and_the_later_wins() {
    let world = World::new().await;
    let first = world.relay("alpha").await;
    let gate = Gate::default();
    world.zooid.plan(None, Fault::Race(gate.clone()), Some(1));
    let (client, relay): (std::sync::Arc<Zooid>, _) = (world.context.zooid.clone(), first.clone());
    let held = tokio::spawn(async move { client.create(&relay).await });
    patiently("it was checked", gate.reached(1)).await;
    let second = world.rename(&first, "second").await;
    world.context.zooid.create(&second).await.unwrap();
    gate.open();
    held.await.unwrap().unwrap();
    assert_eq!(name(&world, first.id.as_str()), first.info_name);
    assert_eq!(world.zooid.calls().iter().filter(|call| call.created).count(), 2);
}
