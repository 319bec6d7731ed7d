//! Sessions: an item that the relay refuses again and again does not delay the others.

use serde_json::{Value, json};

use super::{Process, World};
use crate::support::{
    eventually,
    relays::{Client, FakeRelay},
};

/// Refuses the history of states, and answers every other request with EOSE.
async fn relay() -> FakeRelay {
    FakeRelay::start(|client: Client, message: Value| async move {
        let is_refused = message[2]["kinds"] == json!([30618]) && message[2]["until"].is_i64();
        if message[0] == "REQ" && is_refused {
            client.send(json!(["CLOSED", message[1], "error: no states"])).await;
        } else if message[0] == "REQ" {
            client.send(json!(["EOSE", message[1]])).await;
        } else if message[0] == "NEG-OPEN" {
            client.send(json!(["NEG-ERR", message[1], "error: negentropy disabled"])).await;
        }
    })
    .await
}

/// Lets the refused item be tried until its next attempt waits for the relay's pause.
async fn is_refused_often(world: &World) {
    world
        .reads(
            "select string_agg(family, ',') from grasp_coverage where state <> 'confirmed'",
            "state",
        )
        .await;
    eventually("the item is refused three times", async || {
        world.run("update grasp_coverage set retry_at = now() where state = 'missing'").await;
        world
            .run(
                "insert into grasp_outbox (relay_id, due_at) select id, now() from grasp_relay
                 on conflict (relay_id) do update set due_at = now()",
            )
            .await;
        let sql =
            "select (refusals >= 3 and probe_at > now() + interval '40 s')::text from grasp_relay";
        world.text(sql).await == "true"
    })
    .await;
}

#[tokio::test]
async fn a_new_item_does_not_wait_for_one_that_is_refused_again() {
    let world = World::new().await;
    let relay = relay().await;
    let id = world.relay(&relay.url, &world.items()).await;
    let process = Process::start(&world.db);
    is_refused_often(&world).await;
    let address = format!("{} new", world.address);
    world.want(id, &[("address", &address)]).await;
    let confirmed = "select count(*)::text from grasp_coverage
                     where family = 'address' and state = 'confirmed'";
    world.reads(confirmed, "2").await;
    process.stop().await;
}

#[tokio::test]
async fn a_verification_after_a_reconnect_does_not_wait_for_a_refused_item() {
    let world = World::new().await;
    let relay = relay().await;
    world.relay(&relay.url, &world.items()).await;
    let process = Process::start(&world.db);
    is_refused_often(&world).await;
    process.stop().await;
    let attempts =
        world.number("select attempts::bigint from grasp_coverage where family = 'state'").await;
    world.run("update grasp_relay set last_good_at = now() - interval '1 hour'").await;
    world.run("update grasp_coverage set retry_at = now()").await;
    let process = Process::start(&world.db);
    world.reads("select verified::text from grasp_relay", "true").await;
    let good = "select (last_good_at > now() - interval '1 minute')::text from grasp_relay";
    world.reads(good, "true").await;
    assert!(attempts >= 3, "{attempts}");
    process.stop().await;
}

#[tokio::test]
async fn a_refused_item_waits_for_the_pause_of_its_relay() {
    let world = World::new().await;
    let relay = relay().await;
    world.relay(&relay.url, &[("state", "repo")]).await;
    let process = Process::start(&world.db);
    is_refused_often(&world).await;
    let batches = "select count(*) from grasp_batch";
    let before = world.number(batches).await;
    world.run("update grasp_coverage set retry_at = now()").await;
    let plan = "insert into grasp_outbox (relay_id, due_at) select id, now() from grasp_relay
                on conflict do nothing";
    world.run(plan).await;
    world.reads("select count(*)::text from grasp_outbox", "0").await;
    process.stop().await;
    let process = Process::start(&world.db);
    world.reads("select (status = 'catching_up')::text from grasp_relay", "true").await;
    world.reads("select verified::text from grasp_relay", "true").await;
    assert_eq!(world.number(batches).await, before);
    process.stop().await;
}
