//! Sessions: when a relay is in step, known good, verified and recovered.

use std::sync::Arc;

use serde_json::{Value, json};
use tender::demo::zooid::Gate;

use super::{Process, World, live, now};
use crate::support::relays::{Client, FakeRelay, RealRelay, as_json, gated, serve_req};

/// Answers every request with EOSE, except for states.
async fn without_states(client: Client, message: Value, takes_live: bool) {
    let is_state = message[2]["kinds"] == json!([30618]);
    let is_refused = is_state && !(takes_live && message[2]["until"].is_null());
    if message[0] == "REQ" && is_refused {
        client.send(json!(["CLOSED", message[1], "restricted: no\u{7}\nstates"])).await;
    } else if message[0] == "REQ" {
        client.send(json!(["EOSE", message[1]])).await;
    }
}

async fn relay_without_states(takes_live: bool) -> FakeRelay {
    FakeRelay::start(move |client, message| without_states(client, message, takes_live)).await
}

/// Waits until the first batch of the states has failed, and puts their next attempt far away.
async fn states_are_refused(world: &World) {
    let sql = "select concat_ws(' ', state, attempts) from grasp_coverage where family = 'state'";
    world.reads(sql, "missing 1").await;
    world
        .run(
            "update grasp_coverage set retry_at = now() + interval '1 hour' where family = 'state'",
        )
        .await;
}

#[tokio::test]
async fn missing_items_are_followed_live_after_a_reconnect() {
    let world = World::new().await;
    let relay = relay_without_states(true).await;
    world.relay(&relay.url, &world.items()).await;
    let process = Process::start(&world.db);
    states_are_refused(&world).await;
    process.stop().await;
    let states = || {
        let heard = relay.heard();
        live(&heard).iter().filter(|m| m[2]["kinds"] == json!([30618])).count()
    };
    assert_eq!(states(), 1);
    let process = Process::start(&world.db);
    crate::support::eventually("the missing item is followed live", async || states() == 2).await;
    world
        .reads("select concat_ws(' ', subscriptions, subscriptions_closed) from grasp_relay", "5 0")
        .await;
    process.stop().await;
}

#[tokio::test]
async fn what_the_relay_closed_is_counted_apart_with_its_words() {
    let world = World::new().await;
    let relay = relay_without_states(false).await;
    world.relay(&relay.url, &world.items()).await;
    let counts = "select concat_ws(' ', subscriptions, subscriptions_closed, closed_reason) from grasp_relay";
    let wanted = "4 1 the upstream refused: restricted: no states";
    let process = Process::start(&world.db);
    world.reads(counts, wanted).await;
    states_are_refused(&world).await;
    process.stop().await;
    world.reads(counts, "0 0").await;
    let process = Process::start(&world.db);
    world.reads(counts, wanted).await;
    process.stop().await;
}

#[tokio::test]
async fn a_relay_that_refuses_an_item_is_known_good_but_not_in_step() {
    let world = World::new().await;
    let relay = relay_without_states(true).await;
    world.relay(&relay.url, &world.items()).await;
    let process = Process::start(&world.db);
    world.reads("select (last_good_at is not null)::text from grasp_relay", "true").await;
    let refused = "select string_agg(family, ',') from grasp_coverage where state = 'missing'";
    assert_eq!(world.text(refused).await, "state");
    let states = "select concat_ws(' ', status, grasp_relay_state(r)) from grasp_relay r";
    assert_eq!(world.text(states).await, "catching_up catching_up");
    process.stop().await;
}

#[tokio::test]
async fn a_verification_that_compared_nothing_says_so() {
    let world = World::new().await;
    let (real, gate) = (RealRelay::start().await, Gate::default());
    // Nothing is confirmed before the first verification ends: histories wait at the gate.
    let relay = gated(&real.url, &gate, |text| text.contains("\"until\"")).await;
    world.relay(&relay.url, &world.items()).await;
    let process = Process::start(&world.db);
    let note = "select concat_ws(' ', resynced_at is null, resync_note) from grasp_relay";
    world.reads(note, "t nothing could be verified: nothing was confirmed when it began").await;
    gate.open();
    world.in_step().await;
    world.run("update grasp_relay set resync_due_at = now() - interval '1 s'").await;
    let noted = "select concat_ws(' ', resynced_at is null, resync_note is null) from grasp_relay";
    world.reads(noted, "f t").await;
    process.stop().await;
}

#[tokio::test]
async fn a_relay_that_sends_nothing_keeps_its_failures() {
    let world = World::new().await;
    let relay = FakeRelay::start(|client: Client, message: Value| async move {
        if message[0] == "REQ" {
            client.send(json!(["EOSE", message[1]])).await;
        }
    })
    .await;
    world.relay(&relay.url, &world.items()).await;
    world.run("update grasp_relay set failures = 3, failing_since = now()").await;
    for _ in 0..2 {
        let process = Process::start(&world.db);
        world.in_step().await;
        assert_eq!(world.number("select failures::bigint from grasp_relay").await, 3);
        process.stop().await;
    }
}

#[tokio::test]
async fn a_relay_that_delivers_history_has_recovered() {
    let world = World::new().await;
    let events = Arc::new(as_json(&world.issues(2)));
    let relay = FakeRelay::start(move |client: Client, message: Value| {
        let events = events.clone();
        async move {
            if message[0] == "REQ" {
                let none: &[Value] = &[];
                let is_history = !message[2]["#a"].is_null() && message[2]["limit"] != 0;
                serve_req(&client, &message, if is_history { &events } else { none }, 500).await;
            }
        }
    })
    .await;
    world.relay(&relay.url, &world.items()).await;
    world.run("update grasp_relay set failures = 3, failing_since = now()").await;
    let process = Process::start(&world.db);
    world.reads("select failures::text from grasp_relay", "0").await;
    process.stop().await;
}

#[tokio::test]
async fn a_reconnect_forgets_no_refusals() {
    let world = World::new().await;
    let relay = FakeRelay::start(|client: Client, message: Value| async move {
        if message[0] == "REQ" {
            client.send(json!(["CLOSED", message[1], "restricted: members only"])).await;
        }
    })
    .await;
    let id = world.relay(&relay.url, &[]).await;
    let addresses: Vec<String> = (0..1000).map(|n| format!("{} {n}", world.address)).collect();
    let items: Vec<(&str, &str)> = addresses.iter().map(|one| ("address", one.as_str())).collect();
    world.want(id, &items).await;
    let process = Process::start(&world.db);
    let refused = "select (refusals >= 3 and probe_at > now())::text from grasp_relay";
    world.reads(refused, "true").await;
    world.reads("select count(*)::text from grasp_batch where status = 'open'", "0").await;
    process.stop().await;
    let before = world.number("select count(*) from grasp_batch").await;
    let asked = relay.heard().len();
    world.run("update grasp_coverage set retry_at = now()").await;
    let process = Process::start(&world.db);
    // The session has opened its live subscriptions, and has looked for work.
    crate::support::eventually("a new session", async || relay.heard().len() > asked).await;
    world.reads("select (closed_reason is not null)::text from grasp_relay", "true").await;
    assert_eq!(world.number("select count(*) from grasp_batch").await, before);
    process.stop().await;
}

#[tokio::test]
async fn an_item_that_no_filter_can_name_has_no_next_try() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let long = format!("{}{}", world.address, "x".repeat(200));
    world.relay(&real.url, &[("address", &long), ("address", &world.address)]).await;
    let process = Process::start(&world.db);
    let row = "select concat_ws(' ', state, retry_at is null, refused) from grasp_coverage
               order by length(item) desc limit 1";
    world.reads(row, "missing t t").await;
    let reason = "select reason from grasp_coverage order by length(item) desc limit 1";
    assert!(world.text(reason).await.contains("longer than 255 characters"));
    let good = "select (last_good_at > now() - interval '1 minute')::text from grasp_relay";
    world.reads(good, "true").await;
    let fresh = world.issue(now(), "live");
    real.add(std::slice::from_ref(&fresh)).await;
    world.has(&fresh).await;
    process.stop().await;
}
