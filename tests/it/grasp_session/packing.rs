//! Sessions: many subscriptions are packed, and what does not fit is polled.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Process, World, live, now};
use crate::support::{
    eventually,
    line::Line,
    relays::{Client, FakeRelay, RealRelay},
    scripted::{Manner, scripted},
};

/// Wants 24 addresses, each after the one before is confirmed.
async fn want_one_by_one(world: &World, id: Uuid) {
    for number in 0..24 {
        let address = format!("{} {number}", world.address);
        world.want(id, &[("address", &address)]).await;
        let sql = "select count(*)::text from grasp_coverage where state = 'confirmed'";
        world.reads(sql, &format!("{}", number + 2)).await;
    }
}

#[tokio::test]
async fn many_items_are_packed_into_few_subscriptions() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let line = Line::to(&real.url).await;
    let id = world.relay(&line.url, &[("announcements", "*")]).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    // Each comes alone, and gets three subscriptions of its own: 1 + 24 × 3 would be 73.
    for number in 0..24 {
        let address = format!("{} {number}", world.address);
        world.want(id, &[("address", &address)]).await;
        let count = format!("{}", number + 2);
        let sql = "select count(*)::text from grasp_coverage where state = 'confirmed'";
        world.reads(sql, &count).await;
    }
    world.reads("select (subscriptions between 4 and 70)::text from grasp_relay", "true").await;
    assert_eq!(world.number("select overflow::bigint from grasp_relay").await, 0);
    let heard = line.heard();
    let packed = live(&heard)
        .iter()
        .filter(|m| m[2]["#a"].as_array().is_some_and(|of| of.len() > 1))
        .count();
    assert!(packed > 0, "no packed subscription");
    process.stop().await;
}

#[tokio::test]
async fn items_beyond_the_relays_limit_are_polled_and_reported() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let id = world.relay(&real.url, &[("announcements", "*")]).await;
    // The relay is known to bear five subscriptions: one is left for live ones.
    world.run("insert into upstream (url, enabled, mirrored, negentropy, information, information_at)
               select url, false, false, true, '{\"max_subscriptions\": 5}', now() from grasp_relay").await;
    let old = world.issue(now() - 5000, "old");
    real.add(std::slice::from_ref(&old)).await;
    world.want(id, &[("address", &world.address)]).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    world.has(&old).await;
    world.reads("select concat_ws(' ', subscriptions, overflow) from grasp_relay", "1 1").await;
    process.stop().await;
}

#[tokio::test]
async fn an_event_on_its_way_while_covers_are_packed_is_stored() {
    let world = World::new().await;
    let late = world.issue(now() - 7200, "on its way");
    let (event, first) = (serde_json::to_value(&late).unwrap(), Arc::new(Mutex::new(None)));
    let relay = FakeRelay::start(move |client: Client, message: Value| {
        let (event, first) = (event.clone(), first.clone());
        async move {
            if message[0] != "REQ" {
                return;
            }
            let addresses = message[2]["#a"].as_array().map_or(0, Vec::len);
            if message[2]["until"].is_null() && addresses == 1 {
                first.lock().unwrap().get_or_insert_with(|| message[1].clone());
            } else if message[2]["until"].is_null() && addresses > 1 {
                // Published before the relay saw the packed request, by the old subscription only.
                let old = first.lock().unwrap().take();
                if let Some(old) = old {
                    client.send(json!(["EVENT", old, event])).await;
                }
            }
            client.send(json!(["EOSE", message[1]])).await;
        }
    })
    .await;
    let id = world.relay(&relay.url, &[("address", &world.address)]).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    want_one_by_one(&world, id).await;
    world.has(&late).await;
    process.stop().await;
}

#[tokio::test]
async fn a_relay_that_refuses_a_packed_request_keeps_the_small_ones() {
    let world = World::new().await;
    let relay = FakeRelay::start(|client: Client, message: Value| async move {
        let is_packed = message[2]["until"].is_null()
            && ["#a", "#A", "#q"]
                .iter()
                .any(|tag| message[2][tag].as_array().is_some_and(|of| of.len() > 1));
        if message[0] == "REQ" && is_packed {
            client.send(json!(["CLOSED", message[1], "restricted: one value at most"])).await;
        } else if message[0] == "REQ" {
            client.send(json!(["EOSE", message[1]])).await;
        }
    })
    .await;
    let id = world.relay(&relay.url, &[("address", &world.address)]).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    want_one_by_one(&world, id).await;
    // 23 fit, one after the other; two are polled, because the packed request was refused.
    world.reads("select concat_ws(' ', subscriptions, overflow) from grasp_relay", "69 2").await;
    eventually("the small subscriptions stay open", async || {
        let heard = relay.heard();
        let closed: Vec<&Value> = heard.iter().filter(|m| m[0] == "CLOSE").map(|m| &m[1]).collect();
        let is_small = |m: &&&Value| m[2].to_string().matches("30617:").count() == 1;
        live(&heard).iter().filter(is_small).filter(|m| !closed.contains(&&m[1])).count() == 69
    })
    .await;
    process.stop().await;
}

#[tokio::test]
async fn items_that_no_filter_can_name_are_refused_together() {
    let world = World::new().await;
    let relay = scripted(&[], Manner::default()).await;
    let items: Vec<String> = (0..5).map(|number| format!("no id {number}")).collect();
    let items: Vec<_> = items.iter().map(|item| ("root", item.as_str())).collect();
    world.relay(&relay.url, &items).await;
    let process = Process::start(&world.db);
    let refused = "select concat_ws(' ', count(*), count(distinct xmin::text)) from grasp_coverage
                   where refused and retry_at is null";
    world.reads(refused, "5 1").await;
    process.stop().await;
}
