//! Sessions: which items are followed live, and which are not.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Process, World, live};
use crate::support::relays::{Client, FakeRelay};

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
            }
        }
    })
    .await
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
