//! The size of the batches of uploads: how it follows from the answers, and what a killed run leaves.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use nostr::key::Keys;
use serde_json::{Value, json};
use tender_jobs::{
    mirror::{UPLOADS, lane::LaneKind, upstream::Upstream},
    queue::{self, Requeue},
};

use crate::support::{
    eventually,
    mirror::MirrorWorld,
    relays::{Client, FakeRelay, notes},
};

/// The number of uploads that each transaction stored, in order.
async fn parts(world: &MirrorWorld, upstream: &Upstream) -> Vec<i64> {
    sqlx::query_scalar(
        "select count(*) from event_source where upstream_id = $1
         group by xmin order by xmin::text::bigint",
    )
    .bind(upstream.id)
    .fetch_all(&world.db)
    .await
    .unwrap()
}

/// A relay that answers the n-th event that it gets, from 0 on, as `answer` says; `None` closes the connection.
async fn answering(
    answer: impl Fn(usize) -> Option<&'static str> + Send + Sync + 'static,
) -> FakeRelay {
    let (heard, answer) = (AtomicUsize::new(0), Arc::new(answer));
    FakeRelay::start(move |client: Client, message: Value| {
        let is_event = message[0] == "EVENT";
        let words = is_event.then(|| answer(heard.fetch_add(1, Ordering::SeqCst)));
        async move {
            match words {
                None => {}
                Some(None) => client.close().await,
                Some(Some(words)) => {
                    client.send(json!(["OK", message[1]["id"], words.is_empty(), words])).await;
                }
            }
        }
    })
    .await
}

async fn world_with(count: usize) -> MirrorWorld {
    let world = MirrorWorld::new().await;
    world.put(&notes(&Keys::generate(), count, world.db_now().await - 60, 1)).await;
    world
}

fn small_batches(adaptive: u8) -> Value {
    json!({"direction": "up", "config": {
        "upload_batch_size": 2, "upload_delay_ms": 0, "upload_adaptive": adaptive,
    }})
}

#[tokio::test]
async fn batches_grow_while_the_relay_answers_fast() {
    let (world, relay) = (world_with(120).await, answering(|_| Some("")).await);
    let upstream = world.upstream(&relay.url, small_batches(1)).await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, relay.verbs("EVENT").len()), (120, 120));
    let parts = parts(&world, &upstream).await;
    assert_eq!(parts[0], 2, "{parts:?}");
    assert!(parts.is_sorted_by(|one, next| *next <= 2 * one), "{parts:?}");
    assert!(parts.iter().max() >= Some(&8), "{parts:?}");
}

#[tokio::test]
async fn a_pace_that_does_not_adapt_keeps_the_size() {
    let (world, relay) = (world_with(31).await, answering(|_| Some("")).await);
    let upstream = world.upstream(&relay.url, small_batches(0)).await;
    world.mirror(&upstream, LaneKind::Upload).await;
    let mut sizes = vec![2; 15];
    sizes.push(1);
    assert_eq!(parts(&world, &upstream).await, sizes);
}

#[tokio::test]
async fn the_first_limit_ends_large_batches() {
    let world = world_with(70).await;
    let words = |n| if (40..50).contains(&n) { "rate-limited: slow down" } else { "" };
    let relay = answering(move |n| Some(words(n))).await;
    let upstream = world.upstream(&relay.url, small_batches(1)).await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.upload_pending, relay.verbs("EVENT").len()), (70, 0, 80));
    let parts = parts(&world, &upstream).await;
    assert!(parts.iter().max() >= Some(&8), "{parts:?}");
    let limited: Vec<_> = parts.iter().rev().take(5).collect();
    assert!(
        limited.iter().all(|size| **size <= 2),
        "what was limited goes in small parts: {parts:?}"
    );
}

#[tokio::test]
async fn a_lost_connection_ends_large_batches() {
    let world = world_with(70).await;
    let relay = answering(|n| (n != 40).then_some("")).await;
    let upstream = world.upstream(&relay.url, small_batches(1)).await;
    world.trigger(&upstream, LaneKind::Upload).await;
    world.drain().await;
    let before = parts(&world, &upstream).await.len();
    world.make_due().await;
    world.drain().await;
    let all = parts(&world, &upstream).await;
    assert!(all.iter().max() >= Some(&8) && all.len() > before, "{all:?}");
    assert!(all[before..].iter().all(|size| *size <= 2), "{all:?}");
}

#[tokio::test]
async fn a_run_that_is_killed_in_a_large_batch_loses_no_count_and_no_position() {
    let world = world_with(100).await;
    let (stored, is_mute) =
        (Arc::<Mutex<HashSet<String>>>::default(), Arc::new(AtomicBool::new(true)));
    let (store, mute) = (stored.clone(), is_mute.clone());
    let relay = FakeRelay::start(move |client: Client, message: Value| {
        let id = message[1]["id"].as_str().unwrap_or_default().to_owned();
        let (is_new, count) = {
            let mut stored = store.lock().unwrap();
            (message[0] == "EVENT" && stored.insert(id), stored.len())
        };
        let is_silent = message[0] != "EVENT" || (count > 40 && mute.load(Ordering::SeqCst));
        async move {
            if !is_silent {
                let words = if is_new { "" } else { "duplicate: have it" };
                client.send(json!(["OK", message[1]["id"], is_new, words])).await;
            }
        }
    })
    .await;
    let upstream = world.upstream(&relay.url, small_batches(1)).await;
    world.trigger(&upstream, LaneKind::Upload).await;
    let job = world.fetch_of(UPLOADS).await.expect("the lane's job");
    let running = tokio::spawn(tender_workers::mirror::run(world.context.clone(), job.clone()));
    eventually("a batch is not answered", async || relay.verbs("EVENT").len() > 40).await;
    running.abort(); // as by kill -9: no verdict of the batch is stored
    let _aborted = running.await;
    let (judged, passed): (i64, i64) = sqlx::query_as(
        "select (select count(*) from event_source where upstream_id = lane.upstream_id),
                (select count(*) from event where position <= upload_position)
         from lane where upstream_id = $1 and lane = 'upload'",
    )
    .bind(upstream.id)
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert_eq!(judged, passed, "the position is behind the last verdict");
    assert!((1..=40).contains(&judged), "{judged}");

    queue::requeue(&world.db, &job, &Requeue::rescued()).await.unwrap();
    is_mute.store(false, Ordering::SeqCst);
    world.make_due().await;
    world.drain().await;
    let lane = world.lane(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.upload_duplicate, lane.upload_pending), (100, 0, 0));
    assert_eq!(stored.lock().unwrap().len(), 100);
}
