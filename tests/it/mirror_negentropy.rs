//! Relays that do not reconcile as NIP-77 says: every refusal, and what is done instead.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use nostr::{event::Event, key::Keys};
use serde_json::{Value, json};
use tender_jobs::mirror::{lane::LaneKind, upstream};

use crate::support::{
    mirror::{Mirror, MirrorWorld, days},
    relays::{Client, FakeRelay, RealRelay, as_json, ids, notes, proxy, serve_req},
    scripted::{Hook, Kept, Manner, scripted},
};

/// Answers REQ from the events, and NEG-OPEN as `refuse` does.
async fn refusing<F>(
    events: &[Event],
    refuse: impl Fn(Client, Value) -> F + Send + Sync + 'static,
) -> FakeRelay
where
    F: Future<Output = ()> + Send + 'static,
{
    let (events, refuse) = (Arc::new(as_json(events)), Arc::new(refuse));
    FakeRelay::start(move |client, message| {
        let (events, refuse) = (events.clone(), refuse.clone());
        async move {
            match message[0].as_str() {
                Some("REQ") => serve_req(&client, &message, &events, 500).await,
                Some("NEG-OPEN") => refuse(client, message).await,
                _ => {}
            }
        }
    })
    .await
}

async fn falls_back<F>(refuse: impl Fn(Client, Value) -> F + Send + Sync + 'static, words: &str)
where
    F: Future<Output = ()> + Send + 'static,
{
    falls_back_with(days(2), refuse, words).await;
}

async fn falls_back_with<F>(
    config: Value,
    refuse: impl Fn(Client, Value) -> F + Send + Sync + 'static,
    words: &str,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let world = MirrorWorld::new().await;
    let events = notes(&Keys::generate(), 30, world.db_now().await - 60, 3600);
    let fake = refusing(&events, refuse).await;
    let upstream = world.upstream(&fake.url, json!({"negentropy": true, "config": config})).await;

    let lane = world.mirror(&upstream, LaneKind::Backfill).await;

    assert_eq!(world.stored().await, ids(&events));
    assert_eq!((lane.status.as_str(), lane.method.as_deref()), ("completed", Some("polling")));
    assert!(fake.verbs("NEG-OPEN").len() <= 2, "not tried again for a day");
    let upstream = upstream::find(&world.db, upstream.id).await.unwrap().unwrap();
    assert_eq!(upstream.negentropy_verdict, "unsupported");
    let reason = upstream.negentropy_reason.unwrap();
    assert!(reason.contains(words), "{reason}");
}

#[tokio::test]
async fn a_refusal_by_notice_falls_back_to_polling() {
    let refuse = |client: Client, _| async move {
        client.send(json!(["NOTICE", "ERROR: bad msg: negentropy disabled"])).await;
    };
    falls_back(refuse, "negentropy disabled").await;
}

#[tokio::test]
async fn a_refusal_by_closed_falls_back_to_polling() {
    let refuse = |client: Client, message: Value| async move {
        client.send(json!(["CLOSED", message[1], "unsupported: what is that"])).await;
    };
    falls_back(refuse, "what is that").await;
}

/// Mirrors from a relay that ends each connection in a comparison, three attempts; the number of NEG-OPEN.
async fn hung_up(fake: &FakeRelay, events: &[Event], world: &Mirror) -> usize {
    let upstream = world.upstream(&fake.url, json!({"negentropy": true, "config": days(2)})).await;
    world.mirror(&upstream, LaneKind::Backfill).await;
    for attempt in 1..=2 {
        let lane = world.lane(&upstream, LaneKind::Backfill).await;
        assert_ne!(lane.status, "completed", "attempt {attempt}");
        world.make_due().await;
        world.drain().await;
    }
    let lane = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.method.as_deref()), ("completed", Some("polling")));
    assert_eq!(world.stored().await, ids(events));
    fake.verbs("NEG-OPEN").len()
}

#[tokio::test]
async fn a_relay_that_hangs_up_twice_at_a_comparison_is_polled() {
    let world = MirrorWorld::new().await;
    let events = notes(&Keys::generate(), 30, world.db_now().await - 60, 3600);
    let hang_up = |client: Client, _| async move { client.close().await };
    let fake = refusing(&events, hang_up).await;
    assert_eq!(hung_up(&fake, &events, &world).await, 2);
}

fn hang_up_in_the_second_round(client: Client, message: Value) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        if message[0] == "NEG-MSG" {
            client.close().await;
        }
        message[0] == "NEG-MSG"
    })
}

#[tokio::test]
async fn a_relay_that_hangs_up_in_the_second_round_is_polled_too() {
    let world = MirrorWorld::new().await;
    let events = notes(&Keys::generate(), 600, world.db_now().await - 60, 60);
    world.put(&events[..300]).await;
    let before = Some(hang_up_in_the_second_round as Hook);
    let negentropy = Some((usize::MAX, Kept::Newest));
    let fake = scripted(&events, Manner { negentropy, before, ..Manner::default() }).await;
    assert_eq!(hung_up(&fake, &events, &world).await, 2);
}

#[tokio::test]
async fn a_refusal_by_neg_err_falls_back_to_polling() {
    let refuse = |client: Client, message: Value| async move {
        client.send(json!(["NEG-ERR", message[1], "error: no"])).await;
    };
    falls_back(refuse, "error: no").await;
}

#[tokio::test]
async fn another_version_of_the_protocol_falls_back_to_polling() {
    let refuse = |client: Client, message: Value| async move {
        client.send(json!(["NEG-MSG", message[1], "62"])).await;
    };
    falls_back(refuse, "version").await;
}

#[tokio::test]
async fn frames_that_are_none_fall_back_after_the_second() {
    for (frame, words) in [
        ("6", "the frame is not valid hex"),
        ("zz", "the frame is not valid hex"),
        ("", "the frame is empty"),
        ("610000", "the frame is truncated"),
        ("61000002c0808080", "the frame is truncated"),
        ("6105000300", "a range has an unknown mode"),
    ] {
        let refuse = move |client: Client, message: Value| async move {
            client.send(json!(["NEG-MSG", message[1], frame])).await;
        };
        falls_back(refuse, words).await;
    }
}

#[tokio::test]
async fn silence_after_the_opening_falls_back_to_polling() {
    let mut config = days(2);
    config["negentropy_timeout_seconds"] = json!(1);
    falls_back_with(config, |_, _| async {}, "did not answer NEG-OPEN within 1 s").await;
}

#[tokio::test]
async fn a_window_too_large_is_halved_until_it_fits() {
    let world = MirrorWorld::new().await;
    let now = world.db_now().await;
    let events = notes(&Keys::generate(), 30, now - 60, 1800);
    let relay = RealRelay::start().await;
    relay.add(&events).await;
    // Refuses windows longer than an hour, whatever they hold; the real relay does the others.
    let fake = refusing(&events, |client, message| async move {
        let span = message[2]["until"].as_i64().unwrap() - message[2]["since"].as_i64().unwrap();
        let reason = if span > 3600 { "blocked: too many events" } else { "error: enough of this" };
        client.send(json!(["NEG-ERR", message[1], reason])).await;
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({"negentropy": true, "config": days(1)})).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!(lane.status, "completed");
    assert_eq!(world.stored().await, ids(&events));
    let spans: Vec<i64> = fake
        .verbs("NEG-OPEN")
        .iter()
        .map(|open| open[2]["until"].as_i64().unwrap() - open[2]["since"].as_i64().unwrap())
        .collect();
    assert_eq!(spans, [86_400, 43_200, 21_600, 10_800, 5400, 2700]);
}

#[tokio::test]
async fn a_relay_that_finds_every_window_too_large_is_polled_in_the_end() {
    let world = MirrorWorld::new().await;
    let events = notes(&Keys::generate(), 10, world.db_now().await - 60, 300);
    let fake = refusing(&events, |client, message| async move {
        client.send(json!(["NEG-ERR", message[1], "blocked: too many events", 1])).await;
    })
    .await;
    let config = json!({"backfill_since_hours": 1, "negentropy_chunk_hours": 1});
    let upstream = world.upstream(&fake.url, json!({"negentropy": true, "config": config})).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.method.as_deref()), ("completed", Some("polling")));
    assert_eq!(world.stored().await, ids(&events));
}

#[tokio::test]
async fn ids_that_never_come_are_counted_and_do_not_hold_up_the_window() {
    let world = MirrorWorld::new().await;
    let keys = Keys::generate();
    let events = notes(&keys, 10, world.db_now().await - 60, 60);
    let real = RealRelay::start().await;
    real.add(&events).await;
    // A proxy that keeps one of the events back.
    let (url, hidden) = (real.url.clone(), events[3].id.to_hex());
    let proxy = proxy(&url, move |message| {
        !message.starts_with(r#"["EVENT"#) || !message.contains(&hidden)
    })
    .await;
    let upstream = world.upstream(&proxy.url, json!({"negentropy": true, "config": days(1)})).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.stored, lane.unavailable), ("completed", 9, 1));
}
