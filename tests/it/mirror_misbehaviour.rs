//! Relays that misbehave: every way in which a page fails to end, every kind of bad event, and what
//! authentication needs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use nostr::key::Keys;
use serde_json::{Value, json};
use tender_jobs::mirror::lane::LaneKind;
use tender_workers::mirror::Settings;

use crate::support::{
    mirror::{MirrorWorld, days, settings},
    relays::{Client, FakeRelay, RealRelay, as_json, event, ids, note, notes, serve_req},
};

#[tokio::test]
async fn a_page_that_does_not_end_well_moves_nothing() {
    type Script = fn(Client, Value) -> futures_util::future::BoxFuture<'static, ()>;
    let scripts: [(&str, Script); 4] = [
        ("silent", |_, _| Box::pin(async {})),
        ("closed the connection", |client, _| Box::pin(async move { client.close().await })),
        ("the relay closed the subscription", |client, message| {
            Box::pin(async move {
                client.send(json!(["CLOSED", message[1], "error: shutting down"])).await;
            })
        }),
        ("limits our rate", |client, message| {
            Box::pin(async move {
                client.send(json!(["CLOSED", message[1], "rate-limited: slow down"])).await;
            })
        }),
    ];
    for (words, script) in scripts {
        let world = MirrorWorld::new().await;
        let fake = FakeRelay::start(move |client, message| async move {
            if message[0] == "REQ" {
                script(client, message).await;
            }
        })
        .await;
        let mut config = days(1);
        // Only silence is waited for: the other scripts answer, however slowly.
        if words == "silent" {
            config["polling_timeout_seconds"] = json!(1);
        }
        let upstream = world.upstream(&fake.url, json!({ "config": config })).await;
        for mode in [LaneKind::Backfill, LaneKind::Realtime] {
            world.trigger(&upstream, mode).await;
            assert!(world.step().await);
            let lane = world.lane(&upstream, mode).await;
            assert_eq!(lane.status, "syncing", "it is tried again");
            assert_eq!(lane.backfill_until, lane.backfill_started_at);
            assert_eq!(lane.cursor_at, None);
        }
        let (error,): (String,) = sqlx::query_as(
            "select last_result->>'Err' from apalis.jobs where status = 'Failed' limit 1",
        )
        .fetch_one(&world.db)
        .await
        .unwrap();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn endless_events_end_the_page_and_the_lane_says_so() {
    let world = MirrorWorld::new().await;
    let keys = Keys::generate();
    let now = world.db_now().await;
    let events = Arc::new(as_json(&notes(&keys, 60, now - 10, 1)));
    let fake = FakeRelay::start(move |client, message| {
        let events = events.clone();
        async move {
            if message[0] == "REQ" {
                for event in events.iter() {
                    client.send(json!(["EVENT", message[1], event])).await;
                }
            }
        }
    })
    .await;
    let mut config = days(1);
    config["poll_page_limit"] = json!(5);
    let upstream = world.upstream(&fake.url, json!({ "config": config })).await;
    let lane = world.mirror(&upstream, LaneKind::Realtime).await;
    assert_eq!(lane.status, "error");
    assert!(lane.error_message.unwrap().contains("has no end"));
}

#[tokio::test]
async fn only_what_was_asked_for_is_taken() {
    let world = MirrorWorld::new().await;
    let keys = Keys::generate();
    let now = world.db_now().await;
    let (wanted, other) = (note(&keys, now - 10, "wanted"), note(&keys, now - 999_999, "old"));
    let both = Arc::new(as_json(&[wanted.clone(), other]));
    let fake = FakeRelay::start(move |client, message| {
        let both = both.clone();
        async move {
            if message[0] == "REQ" {
                client.send(json!(["EVENT", "nobody", both[0]])).await;
                client.raw("nonsense").await;
                client.send(json!(["WHAT", 1])).await;
                let is_first = message[2]["until"].as_i64() > both[0]["created_at"].as_i64();
                for event in both.iter().filter(|_| is_first) {
                    client.send(json!(["EVENT", message[1], event])).await;
                }
                client.send(json!(["EOSE", message[1]])).await;
            }
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({})).await;
    let lane = world.mirror(&upstream, LaneKind::Realtime).await;
    assert_eq!(world.stored().await, ids(&[wanted]));
    assert_eq!(lane.status, "idle");
    assert!(lane.violations >= 3, "{}", lane.violations);
}

#[tokio::test]
async fn bad_events_among_good_ones_are_named_and_the_good_ones_stored() {
    let world = MirrorWorld::new().await;
    let keys = Keys::generate();
    let now = world.db_now().await;
    let good = notes(&keys, 5, now - 10, 1);
    let of = |change: &dyn Fn(&mut Value)| {
        let mut bad = serde_json::to_value(note(&keys, now - 20, "bad")).unwrap();
        change(&mut bad);
        bad
    };
    let forged = note(&keys, now - 30, "genuine elsewhere");
    let mut forgery = serde_json::to_value(&forged).unwrap();
    forgery["content"] = json!("forged");
    let mut events = as_json(&good);
    events.extend([
        forgery,
        of(&|event| event["sig"] = json!("0".repeat(128))),
        of(&|event| event["pubkey"] = json!("A".repeat(64))),
        of(&|event| event["content"] = json!("x".repeat(300_000))),
        of(&|event| event["content"] = json!("\u{0}")),
        of(&|event| drop(event.as_object_mut().unwrap().remove("tags"))),
        serde_json::to_value(note(&keys, now + 890, "soon")).unwrap(),
        serde_json::to_value(event(&keys, 20_001, now, "", vec![])).unwrap(),
        serde_json::to_value(event(&keys, 1, now, "", vec![vec!["-"]])).unwrap(),
        serde_json::to_value(event(&keys, 1, now, "", vec![vec!["expiration", "1000"]])).unwrap(),
    ]);
    let events = Arc::new(events);
    let fake = FakeRelay::start(move |client, message| {
        let events = events.clone();
        async move {
            if message[0] == "REQ" {
                serve_req(&client, &message, &events, 500).await;
            }
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({})).await;
    let lane = world.mirror(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), lane.stored), ("idle", 6), "the one from soon too");
    let wanted = [
        ("bad-signature", 1),
        ("ephemeral", 1),
        ("expired", 1),
        ("malformed", 2),
        ("protected", 1),
        ("too-large", 1),
        ("wrong-id", 2),
    ];
    let wanted: Vec<_> =
        wanted.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    assert_eq!(world.rejections().await, wanted);

    let honest = RealRelay::start().await;
    honest.add(std::slice::from_ref(&forged)).await;
    let second = world.upstream(&honest.url, json!({"negentropy": true, "config": days(1)})).await;
    world.mirror(&second, LaneKind::Backfill).await;
    assert!(world.stored().await.contains(&forged.id.to_hex()));
}

#[tokio::test]
async fn a_relay_that_wants_authentication_gets_it_and_is_asked_again() {
    let key = Keys::generate();
    let settings = Settings { key: Some(key.clone()), ..settings() };
    let world = MirrorWorld::with(settings).await;
    let events = notes(&Keys::generate(), 5, world.db_now().await - 60, 1);
    let (stored, is_known) = (Arc::new(as_json(&events)), Arc::new(AtomicUsize::new(0)));
    let wanted = key.public_key().to_hex();
    let fake = FakeRelay::start(move |client, message| {
        let (stored, is_known, wanted) = (stored.clone(), is_known.clone(), wanted.clone());
        async move {
            match message[0].as_str() {
                Some("REQ") if is_known.load(Ordering::SeqCst) == 0 => {
                    client.send(json!(["AUTH", "challenge-1"])).await;
                    client.send(json!(["CLOSED", message[1], "auth-required: who are you"])).await;
                }
                Some("REQ") => serve_req(&client, &message, &stored, 500).await,
                Some("AUTH") => {
                    let event = &message[1];
                    let is_good = event["kind"] == 22_242
                        && event["pubkey"] == wanted.as_str()
                        && event["tags"]
                            .as_array()
                            .unwrap()
                            .contains(&json!(["challenge", "challenge-1"]));
                    is_known.store(usize::from(is_good), Ordering::SeqCst);
                    client.send(json!(["OK", event["id"], is_good, ""])).await;
                }
                _ => {}
            }
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({})).await;
    let lane = world.mirror(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), lane.stored), ("idle", 5));
    let auth = &fake.verbs("AUTH")[0][1];
    assert!(auth["tags"].as_array().unwrap().contains(&json!(["relay", fake.url])));
}

#[tokio::test]
async fn without_a_key_a_relay_that_wants_one_is_an_error_that_says_so() {
    let world = MirrorWorld::new().await;
    let fake = FakeRelay::start(|client, message| async move {
        if message[0] == "REQ" {
            client.send(json!(["CLOSED", message[1], "auth-required: who are you"])).await;
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({})).await;
    let lane = world.mirror(&upstream, LaneKind::Realtime).await;
    assert_eq!(lane.status, "error");
    assert!(lane.error_message.unwrap().contains("RELAY_PRIVATE_KEY"));
}
