//! Relays that misbehave: every refusal of NIP-77, every way in which a page fails to end, every kind
//! of bad event, and what an upload can be answered with.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nostr::{event::Event, key::Keys};
use serde_json::{Value, json};
use tender_jobs::lane::LaneKind;

use crate::support::{
    World,
    relays::{Client, FakeRelay, RealRelay, as_json, event, ids, note, notes, serve_req},
    sync::days,
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
    let world = World::new().await;
    let events = notes(&Keys::generate(), 30, world.db_now().await - 60, 3600);
    let fake = refusing(&events, refuse).await;
    let upstream = world.upstream(&fake.url, json!({"negentropy": true, "config": days(2)})).await;

    let lane = world.sync(&upstream, LaneKind::Backfill).await;

    assert_eq!(world.stored().await, ids(&events));
    assert_eq!((lane.status.as_str(), lane.method.as_deref()), ("completed", Some("polling")));
    assert!(fake.verbs("NEG-OPEN").len() <= 2, "not tried again for a day");
    let upstream = tender_jobs::upstream::find(&world.db, upstream.id).await.unwrap().unwrap();
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
    for frame in ["6", "zz", "", "610000", "61000002c0808080", "6105000300"] {
        let refuse = move |client: Client, message: Value| async move {
            client.send(json!(["NEG-MSG", message[1], frame])).await;
        };
        falls_back(refuse, "").await;
    }
}

#[tokio::test]
async fn silence_after_the_opening_falls_back_within_35_seconds() {
    let begun = std::time::Instant::now();
    falls_back(|_, _| async {}, "30 s").await;
    assert!(begun.elapsed() < Duration::from_secs(45));
}

#[tokio::test]
async fn a_window_too_large_is_halved_until_it_fits() {
    let world = World::new().await;
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
    let lane = world.sync(&upstream, LaneKind::Backfill).await;
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
    let world = World::new().await;
    let events = notes(&Keys::generate(), 10, world.db_now().await - 60, 300);
    let fake = refusing(&events, |client, message| async move {
        client.send(json!(["NEG-ERR", message[1], "blocked: too many events", 1])).await;
    })
    .await;
    let config = json!({"backfill_since_hours": 1, "negentropy_chunk_hours": 1});
    let upstream = world.upstream(&fake.url, json!({"negentropy": true, "config": config})).await;
    let lane = world.sync(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.method.as_deref()), ("completed", Some("polling")));
    assert_eq!(world.stored().await, ids(&events));
}

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
        let world = World::new().await;
        let fake = FakeRelay::start(move |client, message| async move {
            if message[0] == "REQ" {
                script(client, message).await;
            }
        })
        .await;
        let mut config = days(1);
        config["polling_timeout_seconds"] = json!(1);
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
    let world = World::new().await;
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
    let lane = world.sync(&upstream, LaneKind::Realtime).await;
    assert_eq!(lane.status, "error");
    assert!(lane.error_message.unwrap().contains("has no end"));
}

#[tokio::test]
async fn only_what_was_asked_for_is_taken() {
    let world = World::new().await;
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
    let lane = world.sync(&upstream, LaneKind::Realtime).await;
    assert_eq!(world.stored().await, ids(&[wanted]));
    assert_eq!(lane.status, "idle");
    assert!(lane.violations >= 3, "{}", lane.violations);
}

#[tokio::test]
async fn bad_events_among_good_ones_are_named_and_the_good_ones_stored() {
    let world = World::new().await;
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
    let lane = world.sync(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), lane.stored), ("idle", 6), "the one from soon too");
    let wanted = [
        ("bad-signature", 1),
        ("ephemeral", 1),
        ("expired", 1),
        ("malformed", 2),
        ("protected", 1),
        ("too-large", 1),
        ("unstorable", 1),
        ("wrong-id", 1),
    ];
    let wanted: Vec<_> =
        wanted.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    assert_eq!(world.rejections().await, wanted);

    let honest = RealRelay::start().await;
    honest.add(std::slice::from_ref(&forged)).await;
    let second = world.upstream(&honest.url, json!({"negentropy": true, "config": days(1)})).await;
    world.sync(&second, LaneKind::Backfill).await;
    assert!(world.stored().await.contains(&forged.id.to_hex()));
}

#[tokio::test]
async fn a_relay_that_wants_authentication_gets_it_and_is_asked_again() {
    let key = Keys::generate();
    let mut settings = crate::support::settings();
    settings.sync.key = Some(key.clone());
    let world = World::with(settings, |_| {}).await;
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
    let lane = world.sync(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), lane.stored), ("idle", 5));
    let auth = &fake.verbs("AUTH")[0][1];
    assert!(auth["tags"].as_array().unwrap().contains(&json!(["relay", fake.url])));
}

#[tokio::test]
async fn without_a_key_a_relay_that_wants_one_is_an_error_that_says_so() {
    let world = World::new().await;
    let fake = FakeRelay::start(|client, message| async move {
        if message[0] == "REQ" {
            client.send(json!(["CLOSED", message[1], "auth-required: who are you"])).await;
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({})).await;
    let lane = world.sync(&upstream, LaneKind::Realtime).await;
    assert_eq!(lane.status, "error");
    assert!(lane.error_message.unwrap().contains("RELAY_PRIVATE_KEY"));
}

#[tokio::test]
async fn ids_that_never_come_are_counted_and_do_not_hold_up_the_window() {
    let world = World::new().await;
    let keys = Keys::generate();
    let events = notes(&keys, 10, world.db_now().await - 60, 60);
    let real = RealRelay::start().await;
    real.add(&events).await;
    // A proxy that keeps one of the events back.
    let (url, hidden) = (real.url.clone(), events[3].id.to_hex());
    let proxy = crate::support::relays::proxy(&url, move |message| {
        !message.starts_with(r#"["EVENT"#) || !message.contains(&hidden)
    })
    .await;
    let upstream = world.upstream(&proxy.url, json!({"negentropy": true, "config": days(1)})).await;
    let lane = world.sync(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.stored, lane.unavailable), ("completed", 9, 1));
}

#[tokio::test]
async fn each_answer_to_an_upload_has_its_verdict() {
    let world = World::new().await;
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
    world.sync(&from, LaneKind::Backfill).await;
    let fake = FakeRelay::start(|client, message| async move {
        if message[0] == "EVENT" {
            let (taken, words) = message[1]["content"].as_str().unwrap().split_once('|').unwrap();
            client.send(json!(["OK", message[1]["id"], taken == "true", words])).await;
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({"direction": "up"})).await;
    let lane = world.sync(&upstream, LaneKind::Upload).await;
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
        let lane = world.sync(&upstream, LaneKind::Upload).await;
        assert_eq!(lane.upload_pending, i64::from(attempt < 5));
    }
    assert_eq!(fake.verbs("EVENT").len(), 11);
    assert_eq!(world.lane(&upstream, LaneKind::Upload).await.upload_rejected, 4);
}

#[tokio::test]
async fn a_relay_that_limits_our_rate_gets_its_pauses_and_then_everything() {
    let world = World::new().await;
    let source = RealRelay::start().await;
    let events = notes(&Keys::generate(), 20, world.db_now().await - 60, 1);
    source.add(&events).await;
    let from = world.upstream(&source.url, json!({"config": days(1)})).await;
    world.sync(&from, LaneKind::Backfill).await;
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
    let lane = world.sync(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.status.as_str()), (20, "idle"));
}

#[tokio::test]
async fn twenty_refusals_in_a_row_are_believed() {
    let world = World::new().await;
    let source = RealRelay::start().await;
    source.add(&notes(&Keys::generate(), 100, world.db_now().await - 60, 1)).await;
    let from = world.upstream(&source.url, json!({"config": days(1)})).await;
    world.sync(&from, LaneKind::Backfill).await;
    let fake = FakeRelay::start(|client, message| async move {
        if message[0] == "EVENT" {
            client.send(json!(["OK", message[1]["id"], false, "restricted: members only"])).await;
        }
    })
    .await;
    let fields =
        json!({"direction": "up", "config": {"upload_batch_size": 10, "upload_delay_ms": 0}});
    let upstream = world.upstream(&fake.url, fields).await;
    let lane = world.sync(&upstream, LaneKind::Upload).await;
    assert_eq!(lane.status, "error");
    assert!(lane.error_message.unwrap().contains("members only"));
    assert!(fake.verbs("EVENT").len() <= 30);
    assert_eq!(lane.upload_position, 0, "nothing is passed over");
}
