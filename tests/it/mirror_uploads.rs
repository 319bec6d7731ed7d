//! What an upload can be answered with.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use nostr::{event::Event, key::Keys};
use serde_json::json;
use tender_jobs::mirror::{lane::LaneKind, upstream};
use tender_workers::mirror::Settings;

use crate::support::{
    mirror::{MirrorWorld, days},
    relays::{FakeRelay, RealRelay, note, notes},
};

#[tokio::test]
async fn each_answer_to_an_upload_has_its_verdict() {
    let world = MirrorWorld::new().await;
    let keys = Keys::generate();
    let now = world.db_now().await;
    let words = [
        (true, ""),
        (true, "duplicate: have it"),
        (false, "duplicate: have it"),
        (false, "invalid: bad"),
        (false, "pow: more"),
        (false, "blocked: you"),
        (false, "error: disk"),
    ];
    let source = RealRelay::start().await;
    let events: Vec<Event> = (0_i64..)
        .zip(&words)
        .map(|(index, (taken, words))| note(&keys, now - 60 - index, &format!("{taken}|{words}")))
        .collect();
    source.add(&events).await;
    let from = world.upstream(&source.url, json!({"config": days(1)})).await;
    world.mirror(&from, LaneKind::Backfill).await;
    let fake = FakeRelay::start(|client, message| async move {
        if message[0] == "EVENT" {
            let (taken, words) = message[1]["content"].as_str().unwrap().split_once('|').unwrap();
            client.send(json!(["OK", message[1]["id"], taken == "true", words])).await;
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({"direction": "up"})).await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!(
        (lane.uploaded, lane.upload_duplicate, lane.upload_rejected, lane.upload_pending),
        (1, 2, 3, 1)
    );
    assert_eq!(fake.verbs("EVENT").len(), 7);
    assert_eq!(fake.verbs("REQ").len(), 0, "an up relay is never downloaded from");

    // What is pending is tried again in its time, five times in all, and then given up.
    for attempt in 2..=5 {
        sqlx::query("update upload_verdict set next_try = now() where verdict = 'pending'")
            .execute(&world.db)
            .await
            .unwrap();
        let lane = world.mirror(&upstream, LaneKind::Upload).await;
        assert_eq!(lane.upload_pending, i64::from(attempt < 5));
    }
    assert_eq!(fake.verbs("EVENT").len(), 11);
    assert_eq!(world.lane(&upstream, LaneKind::Upload).await.upload_rejected, 4);
}

#[tokio::test]
async fn a_relay_that_limits_our_rate_gets_its_pauses_and_then_everything() {
    let world = MirrorWorld::new().await;
    let source = RealRelay::start().await;
    let events = notes(&Keys::generate(), 20, world.db_now().await - 60, 1);
    source.add(&events).await;
    let from = world.upstream(&source.url, json!({"config": days(1)})).await;
    world.mirror(&from, LaneKind::Backfill).await;
    let heard = Arc::new(AtomicUsize::new(0));
    let fake = FakeRelay::start(move |client, message| {
        let heard = heard.clone();
        async move {
            if message[0] == "EVENT" {
                // The first fifteen are too many.
                let is_late = heard.fetch_add(1, Ordering::SeqCst) >= 15;
                let words = if is_late { "" } else { "rate-limited: slow down" };
                client.send(json!(["OK", message[1]["id"], is_late, words])).await;
            }
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({"direction": "up"})).await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.status.as_str()), (20, "idle"));
}

#[tokio::test]
async fn twenty_refusals_in_a_row_end_a_run_and_the_next_one_goes_on() {
    let world = MirrorWorld::new().await;
    world.put(&notes(&Keys::generate(), 50, world.db_now().await - 60, 1)).await;
    let fake = FakeRelay::start(|client, message| async move {
        if message[0] == "EVENT" {
            client.send(json!(["OK", message[1]["id"], false, "restricted: members only"])).await;
        }
    })
    .await;
    let fields =
        json!({"direction": "up", "config": {"upload_batch_size": 10, "upload_delay_ms": 0}});
    let upstream = world.upstream(&fake.url, fields).await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.status.as_str(), lane.upload_rejected), ("idle", 20), "the verdicts are kept");
    assert_eq!(lane.upload_refusal.as_deref(), Some("restricted: members only"));
    assert!(lane.upload_refused_at.is_some());
    assert!(lane.upload_position >= 20, "the position moved: {}", lane.upload_position);
    world.mirror(&upstream, LaneKind::Upload).await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.status.as_str(), lane.upload_rejected), ("idle", 50));
    assert_eq!(fake.verbs("EVENT").len(), 50, "none was sent twice");
}

#[tokio::test]
async fn a_relay_that_takes_nothing_fails_the_lane_and_rejects_nothing() {
    let world = MirrorWorld::new().await;
    world.put(&notes(&Keys::generate(), 30, world.db_now().await - 60, 1)).await;
    let is_full = Arc::new(AtomicBool::new(true));
    let full = is_full.clone();
    let fake = FakeRelay::start(move |client, message| {
        let is_full = full.load(Ordering::SeqCst);
        async move {
            if message[0] == "EVENT" {
                let words = if is_full { "error: disk full" } else { "" };
                client.send(json!(["OK", message[1]["id"], !is_full, words])).await;
            }
        }
    })
    .await;
    let fields =
        json!({"direction": "up", "config": {"upload_batch_size": 10, "upload_delay_ms": 0}});
    let upstream = world.upstream(&fake.url, fields).await;
    for _ in 0..2 {
        world.trigger(&upstream, LaneKind::Upload).await;
        for _ in 0..5 {
            world.make_due().await;
            world.drain().await;
        }
        let lane = world.lane(&upstream, LaneKind::Upload).await;
        assert_eq!((lane.status.as_str(), lane.upload_rejected), ("error", 0));
        let error = lane.error_message.unwrap();
        assert!(error.contains("took none") && error.contains("disk full"), "{error}");
        assert_eq!(lane.upload_refusal.as_deref(), Some("error: disk full"));
    }
    let attempts: Vec<i32> = sqlx::query_scalar("select distinct attempts from upload_verdict")
        .fetch_all(&world.db)
        .await
        .unwrap();
    assert_eq!(attempts, [0], "the state of the relay is no verdict on the events");

    is_full.store(false, Ordering::SeqCst);
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.status.as_str(), lane.uploaded, lane.upload_pending), ("idle", 30, 0));
}

#[tokio::test]
async fn a_relay_that_takes_events_from_their_authors_only_is_sent_no_others() {
    let own = Keys::generate();
    let settings = Settings { key: Some(own.clone()), ..crate::support::mirror::settings() };
    let world = MirrorWorld::with(settings).await;
    let now = world.db_now().await;
    world.put(&notes(&Keys::generate(), 100, now - 60, 1)).await;
    let fake = FakeRelay::start({
        let own = own.public_key().to_hex();
        move |client, message| {
            let is_own = message[1]["pubkey"] == own.as_str();
            async move {
                if message[0] == "EVENT" {
                    let words = "restricted: you cannot publish events on behalf of others";
                    let words = if is_own { "" } else { words };
                    client.send(json!(["OK", message[1]["id"], is_own, words])).await;
                }
            }
        }
    })
    .await;
    let fields = json!({"direction": "up", "config": {"upload_batch_size": 10}});
    let upstream = world.upstream(&fake.url, fields).await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!(lane.status, "idle");
    assert_eq!(fake.verbs("EVENT").len(), 10, "one batch is enough to learn it");
    let learned = upstream::find(&world.db, upstream.id).await.unwrap().unwrap();
    assert!(learned.authors_only_reason.is_some_and(|why| why.contains("on behalf of others")));

    world.put(&notes(&own, 3, now - 10, 1)).await;
    world.put(&[note(&Keys::generate(), now - 5, "of another")]).await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.status.as_str(), lane.uploaded), ("idle", 3));
    assert_eq!(fake.verbs("EVENT").len(), 13, "only our own events were sent");
}
