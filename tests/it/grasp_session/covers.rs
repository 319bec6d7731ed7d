//! Sessions: which items are followed live, and which are not.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Process, World, live};
use crate::support::{
    eventually,
    relays::{Client, FakeRelay},
};

type Pending = Arc<Mutex<Vec<(Client, Value)>>>;

/// Answers every request with EOSE. The history of items that end with `slow` waits.
async fn slow_relay(pending: &Pending) -> FakeRelay {
    let pending = pending.clone();
    FakeRelay::start(move |client: Client, message: Value| {
        let pending = pending.clone();
        async move {
            let is_slow = message[2]["until"].is_i64() && message[2].to_string().contains("slow\"");
            if message[0] == "REQ" && is_slow {
                pending.lock().unwrap().push((client, message[1].clone()));
            } else if message[0] == "REQ" {
                client.send(json!(["EOSE", message[1]])).await;
            } else if message[0] == "NEG-OPEN" {
                client.send(json!(["NEG-ERR", message[1], "error: negentropy disabled"])).await;
            }
        }
    })
    .await
}

/// The live requests that name the slow item and were not closed.
fn followed(relay: &FakeRelay) -> usize {
    let heard = relay.heard();
    let closed: Vec<&Value> = heard.iter().filter(|m| m[0] == "CLOSE").map(|m| &m[1]).collect();
    let is_open = |m: &&&Value| m.to_string().contains("slow\"") && !closed.contains(&&m[1]);
    live(&heard).iter().filter(is_open).count()
}

/// Answers the slow requests until the item is confirmed.
async fn answer(world: &World, pending: &Pending) {
    eventually("the slow item is confirmed", async || {
        let waiting = std::mem::take(&mut *pending.lock().unwrap());
        for (client, id) in waiting {
            client.send(json!(["EOSE", id])).await;
        }
        let sql = "select string_agg(distinct state, ',') from grasp_coverage";
        world.text(sql).await == "confirmed"
    })
    .await;
}

#[tokio::test]
async fn an_item_that_lost_its_subscription_while_it_was_fetched_is_followed() {
    let world = World::new().await;
    let pending = Pending::default();
    let relay = slow_relay(&pending).await;
    let slow = format!("{} slow", world.address);
    let id = world.relay(&relay.url, &[("address", &slow)]).await;
    // Three items have room for their three subscriptions each, before they are packed.
    world.run("insert into upstream (url, enabled, mirrored, negentropy, information, information_at)
               select url, false, false, true, '{\"max_subscriptions\": 20}', now() from grasp_relay").await;
    let process = Process::start(&world.db);
    eventually("the slow item is asked for", async || !pending.lock().unwrap().is_empty()).await;
    assert_eq!(followed(&relay), 3);
    // Nothing wants the item while the others are packed. Then it is wanted again.
    world.run("create table kept as select * from grasp_coverage where item like '%slow'").await;
    world.run("delete from grasp_coverage where item like '%slow'").await;
    for number in 0..3 {
        let address = format!("{} {number}", world.address);
        world.want(id, &[("address", &address)]).await;
        let sql = "select count(*)::text from grasp_coverage where state = 'confirmed'";
        world.reads(sql, &format!("{}", number + 1)).await;
    }
    eventually("the subscriptions are packed without it", async || followed(&relay) == 0).await;
    world.run("insert into grasp_coverage select * from kept").await;
    answer(&world, &pending).await;
    eventually("the item is followed", async || followed(&relay) == 3).await;
    let fetched =
        "select count(*)::text from grasp_batch where purpose = 'reconnect' and status = 'done'";
    eventually("what came meanwhile is fetched", async || {
        let waiting = std::mem::take(&mut *pending.lock().unwrap());
        for (client, id) in waiting {
            client.send(json!(["EOSE", id])).await;
        }
        world.text(fetched).await == "3"
    })
    .await;
    process.stop().await;
}

#[tokio::test]
async fn many_refused_items_get_no_polls_and_no_more_subscriptions_than_the_relay_bears() {
    let world = World::new().await;
    let relay = slow_relay(&Pending::default()).await;
    let id = world.relay(&relay.url, &[("announcements", "*")]).await;
    let addresses: Vec<String> = (0..1000).map(|n| format!("{} {n}", world.address)).collect();
    let items: Vec<(&str, &str)> = addresses.iter().map(|one| ("address", one.as_str())).collect();
    world.want(id, &items).await;
    // Each was refused alone.
    world
        .run(
            "update grasp_coverage set attempts = 8, batch_size = 1, refused = true, reason = 'no',
                 retry_at = now() + interval '1 hour' where family = 'address'",
        )
        .await;
    let process = Process::start(&world.db);
    world.reads("select verified::text from grasp_relay", "true").await;
    world.reads("select (subscriptions > 60)::text from grasp_relay", "true").await;
    assert_eq!(world.number("select overflow::bigint from grasp_relay").await, 0);
    assert!(live(&relay.heard()).len() <= 70, "{}", live(&relay.heard()).len());
    process.stop().await;
}
