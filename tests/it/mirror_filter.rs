//! The filter of a lane holds for every event that an upstream sends, whichever way it came; and what a
//! standing subscription stores is counted on its lane.

use std::sync::{Arc, Mutex};

use nostr::key::Keys;
use serde_json::{Value, json};
use tender_jobs::{
    mirror::{
        lane::{self, LaneKind, LaneState},
        work::Work,
    },
    queue,
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    eventually,
    mirror::{MirrorWorld, days},
    relays::{Client, FakeRelay, as_json, event, ids, note, notes, serve_req},
};

/// A relay that answers REQ from nothing. It keeps the standing subscription, to send events on.
async fn silent() -> (FakeRelay, Arc<Mutex<Option<(Client, Value)>>>) {
    let standing: Arc<Mutex<Option<(Client, Value)>>> = Arc::default();
    let slot = standing.clone();
    let fake = FakeRelay::start(move |client, message| {
        let slot = slot.clone();
        async move {
            if message[0] == "REQ" {
                client.send(json!(["EOSE", message[1]])).await;
                if message[2]["limit"] == 0 {
                    *slot.lock().unwrap() = Some((client, message[1].clone()));
                }
            }
        }
    })
    .await;
    (fake, standing)
}

#[tokio::test(flavor = "multi_thread")]
async fn live_events_outside_the_filter_are_violations() {
    let (world, keys) = (Arc::new(MirrorWorld::new().await), Keys::generate());
    let (fake, standing) = silent().await;
    let mut config = days(1);
    config["filter"] = json!({"kinds": [1]});
    let upstream = world.upstream(&fake.url, json!({"live": true, "config": config})).await;
    let (stop, workers) = (CancellationToken::new(), world.clone());
    let stopped = stop.clone();
    let running = tokio::spawn(async move { workers.run_workers(stopped).await });
    eventually("the subscription stands", async || standing.lock().unwrap().is_some()).await;
    let (client, id) = standing.lock().unwrap().clone().unwrap();
    let now = world.db_now().await;
    let requests = fake.verbs("REQ");
    let live = requests.iter().find(|message| message[2]["limit"] == 0).unwrap();
    assert!(live[2].get("since").is_none(), "a new event may claim any time");
    let wanted = [note(&keys, now, "one"), note(&keys, now, "two")];
    let others = [event(&keys, 7, now, "+", Vec::new()), event(&keys, 20_001, now, "", Vec::new())];
    for event in as_json(&[wanted.as_slice(), &others, &wanted[..1]].concat()) {
        client.send(json!(["EVENT", id, event])).await;
    }
    let lane = async || world.lane(&upstream, LaneKind::Live).await;
    eventually("the events are stored and counted", async || lane().await.received == 4).await;
    let LaneState { received, stored, duplicate, rejected, violations, .. } = lane().await;
    assert_eq!((received, stored, duplicate, rejected, violations), (4, 2, 1, 1, 1));
    assert_eq!(world.stored().await, ids(&wanted));
    assert_eq!(world.rejections().await, [("ephemeral".to_owned(), 1)]);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_never_confirmed_fails_and_backs_off() {
    let world = Arc::new(MirrorWorld::new().await);
    let fake = FakeRelay::start(|client, message| async move {
        if message[0] == "REQ" && message[2]["limit"] != 0 {
            client.send(json!(["EOSE", message[1]])).await;
        }
    })
    .await;
    let mut config = days(1);
    config["polling_timeout_seconds"] = json!(1);
    let upstream = world.upstream(&fake.url, json!({"live": true, "config": config})).await;
    let (stop, workers) = (CancellationToken::new(), world.clone());
    let stopped = stop.clone();
    let running = tokio::spawn(async move { workers.run_workers(stopped).await });
    eventually("the attempt fails", async || {
        let lanes = lane::states_of(&world.db, upstream.id, 600).await.unwrap();
        let live = lanes.into_iter().find(|lane| lane.lane == LaneKind::Live);
        live.and_then(|lane| lane.last_error).is_some_and(|error| error.contains("no EOSE"))
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn the_live_lane_counts_what_its_jobs_store_also_after_a_death() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({"live": true})).await;
    let settings = upstream.settings(&world.context.settings.defaults);
    let lane = lane::ensure(&world.db, &upstream, LaneKind::Live, &settings).await.unwrap();
    let events = notes(&Keys::generate(), 300, world.db_now().await - 60, 1);
    let texts = |part: &[nostr::event::Event]| {
        as_json(part).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let work = |events| Work::ProcessEvents { upstream: upstream.id, lane: Some(lane.id), events };
    // The first job is the work of a process that died before it could settle: the second one repeats it.
    for part in [&events[..200], &events[..]] {
        queue::enqueue(&world.db, &[work(texts(part)).job()]).await.unwrap();
        assert_eq!(world.drain().await, 1);
    }
    let lane = world.lane(&upstream, LaneKind::Live).await;
    assert_eq!((lane.stored, world.stored().await.len()), (300, 300));
    assert_eq!(lane.received, lane.stored + lane.duplicate + lane.rejected);
}

#[tokio::test]
async fn events_fetched_by_id_are_held_against_the_filter() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let events = notes(&keys, 3, world.db_now().await - 60, 60);
    let mut served = as_json(&events);
    served[1]["kind"] = json!(7); // under the id of a note
    let listed = ids(&events);
    let fake = FakeRelay::start(move |client, message| {
        let (served, listed) = (served.clone(), listed.clone());
        async move {
            match message[0].as_str() {
                Some("REQ") => serve_req(&client, &message, &served, 500).await,
                Some("NEG-OPEN") => {
                    // One range up to infinity: a list of ids.
                    let frame = format!("61000002{:02x}{}", listed.len(), listed.concat());
                    client.send(json!(["NEG-MSG", message[1], frame])).await;
                }
                _ => {}
            }
        }
    })
    .await;
    let mut config = days(1);
    config["filter"] = json!({"kinds": [1]});
    let upstream = world.upstream(&fake.url, json!({"negentropy": true, "config": config})).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!(world.stored().await, ids(&[events[0].clone(), events[2].clone()]));
    assert!(lane.violations > 0 && lane.unavailable > 0, "{lane:?}");
    assert_eq!((lane.rejected, world.rejections().await), (0, Vec::new()));
}

/// A verification that panics says nothing about its events.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_panics_fails_the_window_and_loses_no_event() {
    let world = MirrorWorld::new().await;
    let relay = crate::support::relays::RealRelay::start().await;
    let events = notes(&Keys::generate(), 100, world.db_now().await - 60, 60);
    relay.add(&events).await;
    for fields in [json!({}), json!({"negentropy": true})] {
        sqlx::query("truncate upstream, event, event_source, known_id cascade")
            .execute(&world.db)
            .await
            .unwrap();
        let mut fields = fields;
        fields["config"] = days(1);
        let upstream = world.upstream(&relay.url, fields).await;
        fail::cfg("mirror-verify", "50*off->1*panic->off").unwrap();
        world.trigger(&upstream, LaneKind::Backfill).await;
        assert!(world.step().await);
        let failed = world.lane(&upstream, LaneKind::Backfill).await;
        assert_eq!(failed.backfill_until, failed.backfill_started_at, "{failed:?}");
        assert!(world.stored().await.len() < 100);
        world.make_due().await;
        world.drain().await;
        let lane = world.lane(&upstream, LaneKind::Backfill).await;
        assert_eq!(lane.status, "completed");
        assert_eq!(world.stored().await, ids(&events));
    }
}
