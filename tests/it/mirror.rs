//! Event sync against real relays: downloads by polling and by negentropy, uploads, both ways.

use nostr::key::Keys;
use serde_json::json;
use tender_jobs::mirror::lane::LaneKind;

use crate::support::{
    mirror::{MirrorWorld, days},
    relays::{RealRelay, event, ids, note, notes},
};

#[tokio::test]
async fn history_is_mirrored_by_negentropy() {
    let (world, relay, keys) =
        (MirrorWorld::new().await, RealRelay::start().await, Keys::generate());
    let events = notes(&keys, 3000, world.db_now().await - 60, 250);
    relay.add(&events).await;
    let upstream =
        world.upstream(&relay.url, json!({"negentropy": true, "config": days(10)})).await;

    let lane = world.mirror(&upstream, LaneKind::Backfill).await;

    assert_eq!(world.stored().await, ids(&events));
    assert_eq!((lane.status.as_str(), lane.progress), ("completed", Some(100.0)));
    assert_eq!(lane.backfill_until, lane.backfill_target);
    assert_eq!(
        (lane.received, lane.stored, lane.method.as_deref()),
        (3000, 3000, Some("negentropy"))
    );
}

#[tokio::test]
async fn history_is_mirrored_by_polling_whatever_the_relays_page() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::with(|builder| builder.max_filter_limit(40)).await;
    let events = notes(&Keys::generate(), 1000, world.db_now().await - 60, 20);
    relay.add(&events).await;
    let upstream = world.upstream(&relay.url, json!({"config": days(1)})).await;

    let lane = world.mirror(&upstream, LaneKind::Backfill).await;

    assert_eq!(world.stored().await, ids(&events));
    assert_eq!((lane.status.as_str(), lane.method.as_deref()), ("completed", Some("polling")));
}

#[tokio::test]
async fn what_is_published_now_comes_by_realtime() {
    let (world, relay, keys) =
        (MirrorWorld::new().await, RealRelay::start().await, Keys::generate());
    let upstream = world.upstream(&relay.url, json!({})).await;
    world.mirror(&upstream, LaneKind::Realtime).await;
    let event = note(&keys, world.db_now().await, "new");
    relay.add(std::slice::from_ref(&event)).await;

    let before = world.db_now().await;
    let lane = world.mirror(&upstream, LaneKind::Realtime).await;

    assert_eq!(world.stored().await, ids(&[event]));
    assert_eq!(lane.status, "idle");
    assert!(lane.cursor_at.is_some_and(|at| at >= before), "{lane:?}");
}

#[tokio::test]
async fn local_events_go_up_once_and_oldest_arrival_first() {
    let (world, relay) = (MirrorWorld::new().await, RealRelay::start().await);
    let events = notes(&Keys::generate(), 300, world.db_now().await - 60, 60);
    let source = RealRelay::start().await;
    source.add(&events).await;
    let from = world.upstream(&source.url, json!({"config": days(1)})).await;
    world.mirror(&from, LaneKind::Backfill).await;
    let fields = json!({"direction": "up", "config": {"upload_delay_ms": 0}});
    let upstream = world.upstream(&relay.url, fields).await;

    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.status.as_str()), (300, "idle"));
    let back = MirrorWorld::new().await;
    let mirror = back.upstream(&relay.url, json!({"config": days(1)})).await;
    back.mirror(&mirror, LaneKind::Backfill).await;
    assert_eq!(back.stored().await, ids(&events));

    let again = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!(again.uploaded, 300, "nothing is sent twice");
}

#[tokio::test]
async fn both_sides_end_with_the_same_and_nothing_comes_back() {
    let (world, relay, keys) =
        (MirrorWorld::new().await, RealRelay::start().await, Keys::generate());
    let now = world.db_now().await;
    let theirs = notes(&keys, 100, now - 60, 100);
    relay.add(&theirs).await;
    let ours: Vec<_> = (0..100).map(|at| note(&keys, now - 70 - 100 * at, "ours")).collect();
    let source = RealRelay::start().await;
    source.add(&ours).await;
    let from = world.upstream(&source.url, json!({"config": days(1)})).await;
    world.mirror(&from, LaneKind::Backfill).await;
    let fields = json!({"direction": "both", "negentropy": true, "config": days(1)});
    let upstream = world.upstream(&relay.url, fields).await;

    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.stored, lane.status.as_str()), (100, "completed"));
    let upload = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((upload.uploaded, upload.upload_duplicate), (100, 0), "each is sent once");

    let mut all = [ours, theirs].concat();
    assert_eq!(world.stored().await, ids(&all));
    let back = MirrorWorld::new().await;
    let mirror = back.upstream(&relay.url, json!({"config": days(1)})).await;
    back.mirror(&mirror, LaneKind::Backfill).await;
    all.sort_by_key(|event| event.id);
    assert_eq!(back.stored().await, ids(&all));
}

#[tokio::test]
async fn versions_and_deletions_are_kept_as_their_rules_say() {
    let (world, relay, keys) =
        (MirrorWorld::new().await, RealRelay::start().await, Keys::generate());
    let now = world.db_now().await;
    let profile = event(&keys, 0, now - 100, "new", Vec::new());
    let article = event(&keys, 30023, now - 90, "text", vec![vec!["d", "a"]]);
    let gone = note(&keys, now - 80, "gone");
    let id = gone.id.to_hex();
    let deletion = event(&keys, 5, now - 70, "", vec![vec!["e", &id]]);
    relay.add(&[profile.clone(), article.clone(), deletion.clone()]).await;
    let upstream = world.upstream(&relay.url, json!({"config": days(1)})).await;
    world.mirror(&upstream, LaneKind::Backfill).await;

    let other = RealRelay::start().await;
    let old = event(&keys, 0, now - 200, "old", Vec::new());
    other.add(&[old, gone]).await;
    let second = world.upstream(&other.url, json!({"config": days(1)})).await;
    world.mirror(&second, LaneKind::Backfill).await;

    assert_eq!(world.stored().await, ids(&[profile, article, deletion]));
    let refused = world.rejections().await;
    assert_eq!(refused, [("deleted".to_owned(), 1), ("superseded".to_owned(), 1)]);
}

#[tokio::test]
async fn an_event_with_u0000_arrives_and_is_uploaded_as_it_was_signed() {
    let (world, from, to) =
        (MirrorWorld::new().await, RealRelay::start().await, RealRelay::start().await);
    let at = world.db_now().await - 60;
    let tags = vec![vec!["d", "a\0"], vec!["t", "\0\0"], vec!["t", "sea"]];
    let article = event(&Keys::generate(), 30_023, at, "\0 and \u{7f}", tags);
    from.add(std::slice::from_ref(&article)).await;
    let upstream = world.upstream(&from.url, json!({"config": days(1)})).await;
    world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!(world.stored().await, ids(std::slice::from_ref(&article)));

    let upstream = world.upstream(&to.url, json!({"direction": "up"})).await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.upload_rejected), (1, 0), "the relay verified the id");
    assert_eq!(to.ids().await, ids(&[article]));
}
