//! Sessions: long histories, which are compared or paged in parts.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use nostr::event::Event;
use serde_json::{Value, json};

use super::{Process, World, now};
use crate::support::{
    eventually,
    relays::{Client, FakeRelay, ids},
    scripted::{Hook, Kept, Manner, scripted},
};

/// The second of the newest event; there is one every ten minutes.
static NEWEST: AtomicI64 = AtomicI64::new(0);
const EVERY: i64 = 600;

/// Refuses a comparison of more than 20 events.
async fn refuse_many(client: Client, message: Value) -> bool {
    let second = |key: &str| message[2][key].as_i64().unwrap_or(0);
    let newest = NEWEST.load(Ordering::SeqCst);
    let (oldest, until) = (newest - 29 * EVERY, second("until").min(newest));
    let is_refused = message[0] == "NEG-OPEN" && until - second("since").max(oldest) > 20 * EVERY;
    if is_refused {
        client.send(json!(["NEG-ERR", message[1], "blocked: this query is too big"])).await;
    }
    is_refused
}

/// A relay of which everything was fetched, and which no process follows now.
async fn fetched(world: &World, events: &[Event], manner: Manner) -> FakeRelay {
    let relay = scripted(events, manner).await;
    world.relay(&relay.url, &[("address", &world.address)]).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    process.stop().await;
    relay
}

#[tokio::test]
async fn a_comparison_that_is_too_big_is_split_by_time() {
    let world = World::new().await;
    NEWEST.store(now() - 3600, Ordering::SeqCst);
    let at = |index: i64| NEWEST.load(Ordering::SeqCst) - index * EVERY;
    let events: Vec<_> = (0..30).map(|index| world.issue(at(index), &index.to_string())).collect();
    let manner = Manner {
        negentropy: Some((10_000, Kept::Newest)),
        before: Some(|client, message| Box::pin(refuse_many(client, message))),
        ..Manner::default()
    };
    let relay = fetched(&world, &events, manner).await;
    assert_eq!(world.fetched().await, ids(&events));
    assert_eq!(relay.verbs("NEG-OPEN").len(), 0, "too few events are held to compare them");
    world.run("update grasp_relay set last_good_at = null").await;
    let process = Process::start(&world.db);
    let ended = "select string_agg(distinct concat_ws(' ', method, status), ',') from grasp_batch
                 where purpose = 'fresh'";
    world.reads(ended, "negentropy done").await;
    let short = relay.verbs("NEG-OPEN").iter().filter(|m| m[2]["since"].as_u64() > Some(0)).count();
    assert!(short > 0, "no shorter window was compared");
    let verdict = "select negentropy_verdict from upstream where url like 'ws://127%'";
    world.reads(verdict, "supported").await;
    process.stop().await;
}

/// Refuses every comparison.
async fn refuse_all(client: Client, message: Value) -> bool {
    let is_refused = message[0] == "NEG-OPEN";
    if is_refused {
        client.send(json!(["NEG-ERR", message[1], "blocked: this query is too big"])).await;
    }
    is_refused
}

#[tokio::test]
async fn a_relay_that_refuses_every_comparison_as_too_big_is_paged() {
    let world = World::new().await;
    let events = world.issues(120);
    let manner = Manner {
        negentropy: Some((10_000, Kept::Newest)),
        before: Some(|client, message| Box::pin(refuse_all(client, message))),
        ..Manner::default()
    };
    let relay = fetched(&world, &events, manner).await;
    world.run("update grasp_relay set last_good_at = null").await;
    let process = Process::start(&world.db);
    let ended = "select string_agg(distinct status, ',') from grasp_batch where purpose = 'fresh'";
    world.reads(ended, "done").await;
    let comparisons = relay.verbs("NEG-OPEN").len();
    assert!((1..60).contains(&comparisons), "{comparisons} comparisons");
    process.stop().await;
}

#[tokio::test]
async fn a_walk_that_takes_too_long_goes_on_where_it_ended() {
    let world = World::new().await;
    let events = world.issues(120);
    let relay = scripted(&events, Manner { page: 50, ..Manner::default() }).await;
    world.relay(&relay.url, &[("address", &world.address)]).await;
    world.run("insert into grasp_gap (relay_id, family, item, items, since, until, reason, seen_at)
               select relay_id, family, item, 1, 7, 7, 'of an earlier pass', now() - interval '1 day' from grasp_coverage").await;
    let process = Process::with(&world.db, |context| context.walk_within = Duration::ZERO);
    let mut until = Vec::new();
    for _ in 0..20 {
        let state = "select concat_ws(' ', state, attempts, retry_at > now()) from grasp_coverage";
        eventually("the batch ends", async || {
            ["missing 0 t", "confirmed 0 f"].contains(&world.text(state).await.as_str())
        })
        .await;
        if world.text(state).await == "confirmed 0 f" {
            break;
        }
        let walked = "select coalesce((walked -> 'a' ->> 'until')::bigint, 0) from grasp_coverage";
        until.push(world.number(walked).await);
        world.run("update grasp_coverage set retry_at = now() where state = 'missing'").await;
        world.run("insert into grasp_outbox select id, now() from grasp_relay on conflict (relay_id) do update set due_at = now()").await;
    }
    world.all_confirmed().await;
    assert_eq!(world.fetched().await, ids(&events));
    world.reads("select count(*)::text from grasp_gap", "0").await;
    assert!(until.len() > 1 && until.is_sorted_by(|a, b| a >= b), "{until:?}");
    process.stop().await;
}

#[tokio::test]
async fn long_walks_begin_anew_if_the_relay_was_not_followed_for_long() {
    let world = World::new().await;
    let events = world.issues(20);
    let relay = scripted(&events, Manner::default()).await;
    world.relay(&relay.url, &[("address", &world.address)]).await;
    let walked = "update grasp_coverage set walked = (
                      select jsonb_object_agg(name, jsonb_build_object('at', extract(epoch from now())::bigint - 60, 'until', 1000))
                      from unnest('{a,A,q}'::text[]) n (name))";
    world.run(walked).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    assert_eq!(world.fetched().await, ids(&events));
    process.stop().await;
}

/// Answers NEG-OPEN with a fingerprint that differs from ours, and does not go on.
async fn stall(client: Client, message: Value) -> bool {
    if message[0] == "NEG-OPEN" {
        // Version 1; one range without an end; a fingerprint.
        let frame = format!("61000001{}", "ff".repeat(16));
        client.send(json!(["NEG-MSG", message[1], frame])).await;
    }
    message[0].as_str().is_some_and(|verb| verb.starts_with("NEG-"))
}

#[tokio::test]
async fn a_relay_that_stalls_in_two_comparisons_is_paged() {
    let world = World::new().await;
    let events = world.issues(30);
    let before = Some((|client, message| Box::pin(stall(client, message))) as Hook);
    let relay = scripted(&events, Manner { before, ..Manner::default() }).await;
    world.relay(&relay.url, &[("address", &world.address)]).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    process.stop().await;
    world.run("update grasp_relay set last_good_at = null").await;
    world.run("delete from grasp_batch").await;
    let frame_within = Duration::from_millis(100);
    let process = Process::with(&world.db, move |context| context.frame_within = frame_within);
    let ended = "select string_agg(distinct concat_ws(' ', method, status), ',') from grasp_batch";
    world.reads(ended, "pages done").await;
    // Three filters name the address.
    assert_eq!(relay.verbs("NEG-OPEN").len(), 2);
    process.stop().await;
}

#[tokio::test]
async fn events_that_are_listed_and_not_delivered_are_a_gap() {
    let world = World::new().await;
    let events = world.issues(120);
    for event in &events[..110] {
        world.accept(event).await;
    }
    let manner = Manner {
        negentropy: Some((10_000, Kept::Newest)),
        withheld: [events[115].id.to_hex()].into(),
        phantoms: vec![(u64::try_from(now() - 3600).unwrap(), [7; 32])],
        ..Manner::default()
    };
    let relay = scripted(&events, manner).await;
    world.relay(&relay.url, &[("address", &world.address)]).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    assert_eq!(world.fetched().await, ids(&events));
    assert!(!relay.verbs("NEG-OPEN").is_empty());
    let gap = format!("1 the relay lists 1 events and does not deliver them: {}", "07".repeat(32));
    world.reads("select concat_ws(' ', count(*), max(reason)) from grasp_gap", &gap).await;
    process.stop().await;
}
