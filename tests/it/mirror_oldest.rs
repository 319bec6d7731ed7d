//! Seconds at the end of a window, where no older event of the window shows that they are whole; and
//! what was learned of a relay that answers differently now.

use nostr::key::Keys;
use serde_json::json;
use tender_jobs::mirror::lane::LaneKind;

use crate::{
    mirror_caps::{dense, make_gaps_due, polled},
    support::{
        mirror::{MirrorWorld, days},
        relays::{FakeRelay, as_json, ids, note, notes, serve_req},
        scripted::{Manner, scripted},
    },
};

/// The seconds of a day, which is the length of a window here.
const DAY: i64 = 86_400;

#[tokio::test]
async fn a_page_that_is_full_at_our_own_limit_is_no_proof() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let now = world.db_now().await;
    let mut events = dense(&keys, &[3, 1530, 2], now - 100, 60);
    events.extend(dense(&keys, &[800], now - DAY - 1000, 60));
    events.extend(notes(&keys, 3, now - 2 * DAY - 1000, 60));
    let fake = scripted(&events, Manner { page: 1000, ..Manner::default() }).await;
    let upstream = world.upstream(&fake.url, json!({"config": days(4)})).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gap_seconds), ("completed", 1));
    assert_eq!(world.stored().await.len(), events.len() - 530, "the second of 800 is whole");
    // A retry proves no more than the first time.
    make_gaps_due(&world).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!(lane.gap_seconds, 1);
}

#[tokio::test]
async fn a_burst_at_the_end_of_a_window_is_whole_or_a_gap() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let now = world.db_now().await;
    let mut events = Vec::new();
    for day in 0..4 {
        events.extend(dense(&keys, &[30], now - day * DAY - 5000, 60));
    }
    let fake = scripted(&events, Manner { page: 10, ..Manner::default() }).await;
    let upstream = world.upstream(&fake.url, json!({"config": days(5)})).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gap_seconds), ("completed", 4));
}

#[tokio::test]
async fn an_until_that_is_inclusive_again_is_noticed() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let at = world.db_now().await - 5000;
    let events = dense(&keys, &[150, 100, 50], at, 1);
    let fake = scripted(&events, Manner { page: 100, larger: 1000, ..Manner::default() }).await;
    let upstream = world.upstream(&fake.url, json!({"config": days(1)})).await;
    sqlx::query("update upstream set exclusive_until_at = now()").execute(&world.db).await.unwrap();
    // The window ends right below the second of 150 events.
    let lane = world.trigger(&upstream, LaneKind::Backfill).await.lane.unwrap();
    sqlx::query("update lane set backfill_until = $2 where id = $1")
        .bind(lane)
        .bind(at - 1)
        .execute(&world.db)
        .await
        .unwrap();
    world.drain().await;
    let lane = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 0));
    assert_eq!(world.stored().await.len(), 150, "100 and 50");
    let learned = tender_jobs::mirror::upstream::learned(&world.db, upstream.id).await.unwrap();
    assert!(!learned.is_exclusive());
}

#[tokio::test]
async fn a_relay_that_ends_a_page_between_its_events_is_a_failed_lane() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let events = as_json(&notes(&keys, 40, world.db_now().await - 100, 60));
    let fake = FakeRelay::start(move |client, message| {
        let (before, after) = (events[..20].to_vec(), events[20..].to_vec());
        async move {
            if message[0] == "REQ" {
                serve_req(&client, &message, &before, 500).await;
                for event in after {
                    client.send(json!(["EVENT", message[1], event])).await;
                }
            }
        }
    })
    .await;
    let (_, lane) = polled(&world, &fake).await;
    assert_eq!(lane.status, "error");
    let error = lane.error_message.unwrap();
    assert!(error.contains("after the end of the page"), "{error}");
}

#[tokio::test]
async fn one_event_and_nothing_else_is_complete_after_few_requests() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let event = note(&keys, world.db_now().await - 100, "alone");
    let fake = scripted(std::slice::from_ref(&event), Manner::default()).await;
    let (_, lane) = polled(&world, &fake).await;
    assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 0));
    assert_eq!(world.stored().await, ids(&[event]));
    assert!(fake.verbs("REQ").len() <= 4, "{:?}", fake.verbs("REQ"));
}
