//! One uploader per upstream: what is sent, how often, and what is counted.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use nostr::key::Keys;
use serde_json::{Value, json};
use tender_jobs::{
    mirror::{UPLOADS, event::outgoing, filter::Filter, lane::LaneKind, work::Work},
    queue::{self, Requeue},
};

use crate::support::{
    eventually,
    mirror::{MirrorWorld, days},
    relays::{Client, FakeRelay, RealRelay, event, ids, note, notes, spy},
};

fn answer(message: &Value, is_taken: bool, words: &str) -> Value {
    json!(["OK", message[1]["id"], is_taken, words])
}

#[tokio::test]
async fn what_a_relay_lost_is_uploaded_again() {
    let (world, relay) = (MirrorWorld::new().await, RealRelay::start().await);
    let events = notes(&Keys::generate(), 60, world.db_now().await - 60, 60);
    world.put(&events).await;
    let mut config = days(1);
    config["upload_delay_ms"] = json!(0);
    let fields = json!({"direction": "up", "negentropy": true, "config": config});
    let upstream = world.upstream(&relay.url, fields).await;
    world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!(relay.ids().await, ids(&events));

    relay.wipe().await;
    let upload = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!(upload.uploaded, 60, "it is believed to have everything");
    world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!(relay.ids().await, ids(&events), "the comparison showed what is missing");
    let upload = world.lane(&upstream, LaneKind::Upload).await;
    assert_eq!((upload.uploaded, upload.upload_duplicate, upload.upload_pending), (120, 0, 0));
}

#[tokio::test]
async fn a_widened_filter_revisits_the_positions_that_were_passed() {
    let (world, relay, keys) =
        (MirrorWorld::new().await, RealRelay::start().await, Keys::generate());
    let now = world.db_now().await;
    let of_kind = |kind, at| event(&keys, kind, now - at, "", Vec::new());
    let events = [of_kind(1, 100), of_kind(7, 90), of_kind(1, 80), of_kind(9, 70)];
    world.put(&events).await;
    let filter = |kinds: &[u16]| json!({ "config": { "filter": { "kinds": kinds } } });
    let mut fields = filter(&[1]);
    fields["direction"] = json!("up");
    let upstream = world.upstream(&relay.url, fields).await;
    assert_eq!(world.mirror(&upstream, LaneKind::Upload).await.uploaded, 2);
    assert_eq!(world.mirror(&upstream, LaneKind::Upload).await.uploaded, 2);
    let upstream = world.change_upstream(&upstream, filter(&[1, 7, 9])).await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.upload_duplicate), (4, 0), "nothing was sent twice");
    assert_eq!(relay.ids().await, ids(&events));
}

#[tokio::test]
async fn a_reconciliation_beside_an_upload_sends_nothing_twice() {
    let (world, relay) = (MirrorWorld::new().await, RealRelay::start().await);
    let now = world.db_now().await;
    let ours = notes(&Keys::generate(), 1500, now - 60, 50);
    let theirs = notes(&Keys::generate(), 300, now - 30, 250);
    world.put(&ours).await;
    relay.add(&theirs).await;
    let sent: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let counted = sent.clone();
    let spy = spy(&relay.url, move |message: &str| {
        let message: Value = serde_json::from_str(message).unwrap();
        if message[0] == "EVENT" {
            let id = message[1]["id"].as_str().unwrap().to_owned();
            *counted.lock().unwrap().entry(id).or_default() += 1;
        }
    })
    .await;
    let mut config = days(1);
    config["negentropy_chunk_hours"] = json!(2);
    config["upload_delay_ms"] = json!(0);
    let fields = json!({"direction": "both", "negentropy": true, "config": config});
    let upstream = world.upstream(&spy.url, fields).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    world.trigger(&upstream, LaneKind::Upload).await;
    // Two workers, so that windows are compared while events are on their way.
    let rounds = async |queue: &'static str| {
        for _ in 0..200 {
            let Some(job) = world.fetch_of(queue).await else { break };
            tender_workers::mirror::run(world.context.clone(), job).await;
        }
    };
    tokio::join!(rounds(tender_jobs::mirror::MIRROR), rounds(UPLOADS));
    world.drain().await;

    assert_eq!(relay.ids().await, ids(&[ours.clone(), theirs].concat()));
    let sent = sent.lock().unwrap().clone();
    let twice: Vec<_> = sent.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{} events were sent twice", twice.len());
    assert_eq!(sent.len(), 1500);
    let lane = world.lane(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.upload_duplicate), (1500, 0));
}

#[tokio::test]
async fn an_event_that_ends_the_connection_is_found_and_the_others_go() {
    let world = MirrorWorld::new().await;
    let (keys, now) = (Keys::generate(), world.db_now().await);
    let mut events = notes(&keys, 120, now - 100, 1);
    let poison = note(&keys, now - 50, "poison");
    events.insert(60, poison.clone());
    world.put(&events).await;
    let fake = FakeRelay::start(|client: Client, message: Value| async move {
        if message[0] == "EVENT" && message[1]["content"] == "poison" {
            client.close().await;
        } else if message[0] == "EVENT" {
            client.send(answer(&message, true, "")).await;
        }
    })
    .await;
    let fields = json!({"direction": "up", "config": {"upload_batch_size": 40, "upload_delay_ms": 0, "upload_adaptive": 0}});
    let upstream = world.upstream(&fake.url, fields).await;
    world.trigger(&upstream, LaneKind::Upload).await;
    world.drain().await;
    world.make_due().await;
    world.drain().await;
    let lane = world.lane(&upstream, LaneKind::Upload).await;
    assert!(lane.uploaded >= 80, "the other batches went at once: {}", lane.uploaded);
    for _ in 0..20 {
        world.make_uploads_due().await;
        world.trigger(&upstream, LaneKind::Upload).await;
        world.make_due().await;
        world.drain().await;
    }
    let lane = world.lane(&upstream, LaneKind::Upload).await;
    let (verdict, attempts, message): (String, i32, String) = sqlx::query_as(
        "select verdict, attempts, message from upload_verdict where event_id = decode($1, 'hex')",
    )
    .bind(poison.id.to_hex())
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert_eq!((verdict.as_str(), attempts), ("rejected", 5), "{message}");
    assert_eq!((lane.upload_pending, lane.upload_rejected), (0, 1));
    let taken: HashSet<String> = fake
        .verbs("EVENT")
        .iter()
        .map(|message| message[1]["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(taken.len(), 121);
    assert_eq!(lane.uploaded + lane.upload_duplicate, 120, "all others went");
}

#[tokio::test]
async fn an_event_above_the_limits_of_the_relay_is_not_sent() {
    let world = MirrorWorld::new().await;
    let (keys, now) = (Keys::generate(), world.db_now().await);
    let (small, large) = (note(&keys, now - 20, "small"), note(&keys, now - 10, &"x".repeat(2000)));
    world.put(&[small.clone(), large.clone()]).await;
    let fake = FakeRelay::start(|client: Client, message: Value| async move {
        if message[0] == "EVENT" {
            client.send(answer(&message, true, "")).await;
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({"direction": "up"})).await;
    sqlx::query("update upstream set information = $1, information_at = now() where id = $2")
        .bind(json!({ "max_message_length": 2000 }))
        .bind(upstream.id)
        .execute(&world.db)
        .await
        .unwrap();
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.upload_rejected, lane.status.as_str()), (1, 1, "idle"));
    assert_eq!(fake.verbs("EVENT").len(), 1);
    let message: String = sqlx::query_scalar("select message from upload_verdict")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert!(message.starts_with("not sent: ") && message.contains("2000 (NIP-11)"), "{message}");
}

#[tokio::test]
async fn a_page_of_large_events_is_bounded_in_bytes() {
    let world = MirrorWorld::new().await;
    let (keys, now, large) = (Keys::generate(), world.db_now().await, "x".repeat(900_000));
    let events: Vec<_> = (0..20).map(|n| note(&keys, now - 60 - n, &large)).collect();
    world.put(&events).await;
    let relay = RealRelay::start().await;
    let upstream = world.upstream(&relay.url, json!({"direction": "up"})).await;
    let filter = Filter::default();
    let first = outgoing::candidates(&world.db, upstream.id, &filter, None, 0, 1000).await.unwrap();
    assert_eq!((first.events.len(), first.more), (18, true));
    let rest = outgoing::candidates(&world.db, upstream.id, &filter, None, first.up_to, 1000);
    assert_eq!(rest.await.unwrap().events.len(), 2);
    world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!(relay.ids().await, ids(&events));
}

#[tokio::test]
async fn a_killed_run_loses_no_count() {
    let world = MirrorWorld::new().await;
    world.put(&notes(&Keys::generate(), 50, world.db_now().await - 60, 1)).await;
    let (stored, is_mute) = (Arc::<Mutex<HashSet<String>>>::default(), Arc::new(Mutex::new(true)));
    let (store, mute) = (stored.clone(), is_mute.clone());
    let fake = FakeRelay::start(move |client: Client, message: Value| {
        let id = message[1]["id"].as_str().unwrap_or_default().to_owned();
        let is_new = message[0] == "EVENT" && store.lock().unwrap().insert(id);
        let is_mute = *mute.lock().unwrap();
        async move {
            if !is_mute {
                let words = if is_new { "" } else { "duplicate: have it" };
                client.send(answer(&message, is_new, words)).await;
            }
        }
    })
    .await;
    let fields =
        json!({"direction": "up", "config": {"upload_batch_size": 20, "upload_delay_ms": 0}});
    let upstream = world.upstream(&fake.url, fields).await;
    world.trigger(&upstream, LaneKind::Upload).await;
    for round in 1..=2 {
        let job = world.fetch_of(UPLOADS).await.expect("the lane's job");
        let running = tokio::spawn(tender_workers::mirror::run(world.context.clone(), job.clone()));
        eventually("a batch is stored there", async || fake.verbs("EVENT").len() >= 20 * round)
            .await;
        running.abort(); // as by kill -9: no verdict is stored
        let _aborted = running.await;
        queue::requeue(&world.db, &job, &Requeue::rescued()).await.unwrap();
    }
    *is_mute.lock().unwrap() = false;
    world.make_due().await;
    world.drain().await;
    let lane = world.lane(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.upload_duplicate), (50, 0));
    assert_eq!(stored.lock().unwrap().len(), 50);
}

#[tokio::test]
async fn a_list_that_an_earlier_release_enqueued_goes_up_by_the_lane() {
    let (world, relay) = (MirrorWorld::new().await, RealRelay::start().await);
    let events = notes(&Keys::generate(), 5, world.db_now().await - 60, 1);
    world.put(&events).await;
    let upstream = world.upstream(&relay.url, json!({"direction": "up"})).await;
    let list = Work::UploadEvents { upstream: upstream.id, events: ids(&events) };
    queue::enqueue(&world.db, &[list.job()]).await.unwrap();
    world.drain().await;
    assert_eq!(relay.ids().await, ids(&events));
    assert_eq!(world.lane(&upstream, LaneKind::Upload).await.uploaded, 5);
}
