//! Sessions: relays that refuse, limit, stall, or want authentication.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Process, World};
use crate::support::{
    eventually,
    relays::{Client, FakeRelay, RealRelay, as_json, ids},
};

#[tokio::test]
async fn a_closed_filter_stays_missing_and_is_retried_without_a_reconnect() {
    let world = World::new().await;
    let events = Arc::new(as_json(&world.issues(3)));
    let refuses = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (of_script, is_refusing) = (events.clone(), refuses.clone());
    let relay = FakeRelay::start(move |client: Client, message: Value| {
        let (events, refuses) = (of_script.clone(), is_refusing.clone());
        async move {
            if message[0] != "REQ" {
                return;
            }
            let is_state = message[2]["kinds"] == json!([30618]);
            if is_state && refuses.load(std::sync::atomic::Ordering::SeqCst) {
                client.send(json!(["CLOSED", message[1], "error: no states today"])).await;
                return;
            }
            if !message[2]["#a"].is_null() && message[2]["limit"] != 0 {
                let until = message[2]["until"].as_i64().unwrap();
                for event in events.iter().filter(|e| e["created_at"].as_i64() <= Some(until)) {
                    client.send(json!(["EVENT", message[1], event])).await;
                }
            }
            client.send(json!(["EOSE", message[1]])).await;
        }
    })
    .await;
    world.relay(&relay.url, &world.items()).await;
    let process = Process::start(&world.db);
    world.reads("select string_agg(family, ',' order by family) from grasp_coverage where state = 'confirmed'",
        "address,announcements").await;
    world
        .reads(
            "select state || ' ' || attempts from grasp_coverage where family = 'state'",
            "missing 1",
        )
        .await;
    assert!(
        world
            .text("select reason from grasp_coverage where family = 'state'")
            .await
            .contains("no states today")
    );
    let due = world.number("select extract(epoch from retry_at - now())::bigint from grasp_coverage where family = 'state'").await;
    assert!((5..=65).contains(&due), "{due}");
    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    world.run("update grasp_coverage set retry_at = now() where family = 'state'").await;
    world.run("insert into grasp_outbox select id, now() from grasp_relay on conflict (relay_id) do update set due_at = now()").await;
    world.all_confirmed().await;
    assert_eq!(relay.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "no reconnect");
    process.stop().await;
}

#[tokio::test]
async fn a_rate_limit_pauses_the_relay_and_costs_no_attempt() {
    let world = World::new().await;
    let relay = FakeRelay::start(|client: Client, message: Value| async move {
        if message[0] == "REQ" && message[2]["until"].is_i64() {
            client.send(json!(["CLOSED", message[1], "rate-limited: slow down"])).await;
        } else if message[0] == "REQ" {
            client.send(json!(["EOSE", message[1]])).await;
        }
    })
    .await;
    world.relay(&relay.url, &[("announcements", "*"), ("state", "repo")]).await;
    let process = Process::start(&world.db);
    world.reads("select (limited_until > now())::text from grasp_relay", "true").await;
    world
        .reads("select string_agg(distinct state || attempts, ',') from grasp_coverage", "missing0")
        .await;
    let pause = world
        .number("select extract(epoch from limited_until - now())::bigint from grasp_relay")
        .await;
    assert!((5..=65).contains(&pause), "{pause}");
    assert_eq!(relay.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    process.stop().await;
}

#[tokio::test]
async fn a_stalled_relay_slows_no_other() {
    let world = World::new().await;
    let silent = FakeRelay::start(|_: Client, _: Value| async {}).await;
    let real = RealRelay::start().await;
    let events = world.issues(5);
    real.add(&events).await;
    let stalled = world.relay(&silent.url, &world.items()).await;
    let good = world.relay(&real.url, &world.items()).await;
    let process = Process::start(&world.db);
    eventually("the good relay is in step", async || {
        let sql = "select status from grasp_relay where id = $1";
        let status: String = sqlx::query_scalar(sql).bind(good).fetch_one(&world.db).await.unwrap();
        status == "in_step"
    })
    .await;
    assert_eq!(world.fetched().await, ids(&events));
    let sql = "select count(*) from grasp_coverage where relay_id = $1 and state = 'confirmed'";
    let confirmed: i64 = sqlx::query_scalar(sql).bind(stalled).fetch_one(&world.db).await.unwrap();
    assert_eq!(confirmed, 0);
    let begun = Instant::now();
    process.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(30), "a stalled relay does not hold up the end");
    assert_eq!(
        world.number("select count(*) from grasp_coverage where state = 'in_flight'").await,
        0
    );
}

#[tokio::test]
async fn a_relay_that_wants_authentication_for_ever_is_asked_a_few_times() {
    let world = World::new().await;
    let relay = FakeRelay::start(|client: Client, message: Value| async move {
        match message[0].as_str() {
            Some("REQ") => {
                client.send(json!(["AUTH", "one challenge"])).await;
                client.send(json!(["CLOSED", message[1], "auth-required: members only"])).await;
            }
            Some("AUTH") => client.send(json!(["OK", message[1]["id"], true, ""])).await,
            _ => {}
        }
    })
    .await;
    let id = world.relay(&relay.url, &[]).await;
    let addresses: Vec<String> = (0..1000).map(|n| format!("{} {n}", world.address)).collect();
    let items: Vec<(&str, &str)> = addresses.iter().map(|one| ("address", one.as_str())).collect();
    world.want(id, &items).await;
    let process = Process::start(&world.db);
    let refused = "select (count(*) >= 3)::text from grasp_batch where status = 'failed'";
    world.reads(refused, "true").await;
    let open = "select count(*)::text from grasp_batch where status = 'open'";
    world.reads(open, "0").await;
    // A further plan begins nothing while the next probe waits.
    world.run("update grasp_coverage set retry_at = now()").await;
    world
        .run(
            "insert into grasp_outbox (relay_id, due_at) select id, now() from grasp_relay
             on conflict do nothing",
        )
        .await;
    world.reads("select count(*)::text from grasp_outbox", "0").await;
    world.reads(open, "0").await;
    // Two were running when the third refusal came.
    assert!(world.number("select count(*) from grasp_batch").await <= 5);
    process.stop().await;
}
