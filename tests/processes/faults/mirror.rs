//! Mirroring with its workers killed, stopped and many at once: the same set in the end, no lane with two
//! holders.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::sys::signal::Signal;
use nostr::{event::Event, key::Keys};
use serde_json::{Value, json};
use tender::demo::zooid::Gate;
use tender_jobs::mirror::{lane::LaneKind, upstream::Upstream};
use tender_workers::mirror::orchestrate;

use super::{RECOVERY, reached};
use crate::support::{
    eventually,
    mirror::MirrorWorld,
    process::Tender,
    relays::{FakeRelay, RealRelay, as_json, gated, ids, notes, serve_req, spy},
    within,
};

/// A worker of the mirror without recurring jobs.
fn start(world: &MirrorWorld) -> Tender {
    let arguments =
        ["work", "--queue", "mirror=2", "--queue", "mirror-uploads", "--queue", "mirror-events"];
    Tender::start_mirror(world, &arguments, &[])
}

/// Windows of an hour, so that there are many.
fn hours(hours: i64) -> Value {
    json!({
        "backfill_since_hours": hours, "negentropy_chunk_hours": 1, "polling_chunk_hours": 1,
        "chunk_max_hours": 1, "checkpoint_interval": 1,
    })
}

async fn stored(world: &MirrorWorld, upstream: &Upstream) -> i64 {
    world.lane(upstream, LaneKind::Backfill).await.stored
}

async fn is_completed(world: &MirrorWorld, upstream: &Upstream) -> bool {
    world.lane(upstream, LaneKind::Backfill).await.status == "completed"
}

/// Live and deleted events.
async fn events_of(world: &MirrorWorld) -> i64 {
    sqlx::query_scalar("select count(*) from event").fetch_one(&world.db).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_killed_again_and_again_ends_with_the_same_set_and_counts_it_once() {
    let (world, relay) = (MirrorWorld::new().await, RealRelay::start().await);
    let events = notes(&Keys::generate(), 1500, world.db_now().await - 60, 100);
    relay.add(&events).await;
    let gate = Gate::default();
    // Two messages of each window pass the gate: its reconciliation, and the request for its events.
    let windows: Arc<Mutex<Vec<Value>>> = Arc::default();
    let record = windows.clone();
    let is_held = move |text: &str| {
        let is_opening = text.starts_with(r#"["NEG-OPEN""#);
        if is_opening {
            let message: Value = serde_json::from_str(text).unwrap();
            record.lock().unwrap().push(json!([message[2]["since"], message[2]["until"]]));
        }
        is_opening || text.starts_with(r#"["REQ","fetch_"#)
    };
    let proxy = gated(&relay.url, &gate, is_held).await;
    let fields = json!({"negentropy": true, "config": hours(42)});
    let upstream = world.upstream(&proxy.url, fields).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    for round in 1..=8 {
        let mut worker = start(&world);
        // The worker repeats the message that was held when its predecessor died, and is killed some
        // windows later: before a reconciliation and before a request, by turns.
        let held = gate.count() + 1;
        reached(&gate, held).await;
        let messages = 8 + round % 2;
        gate.let_through(messages);
        reached(&gate, held + messages).await;
        world.bury(&mut worker).await;
        assert_eq!(stored(&world, &upstream).await, events_of(&world).await, "round {round}");
    }
    assert!(events_of(&world).await > 0, "something was stored by workers that were killed");
    gate.open();
    let _worker = start(&world);
    within(RECOVERY, "history is done", async || is_completed(&world, &upstream).await).await;
    assert_eq!(world.stored().await, ids(&events));
    let lane = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.stored, lane.backfill_until), (1500, lane.backfill_target));
    let opened = windows.lock().unwrap().clone();
    let different: HashSet<String> = opened.iter().map(Value::to_string).collect();
    let repeated = opened.len() - different.len();
    assert!(repeated <= 8, "each of 8 deaths repeats at most one window; {repeated} were repeated");
}

/// A relay whose answers wait at the gate, and the windows that it was asked for.
async fn gated_relay(events: &[Event], gate: &Gate) -> (FakeRelay, Arc<Mutex<Vec<(i64, i64)>>>) {
    let asked: Arc<Mutex<Vec<(i64, i64)>>> = Arc::default();
    let (events, record, gate) = (Arc::new(as_json(events)), asked.clone(), gate.clone());
    let fake = FakeRelay::start(move |client, message| {
        let (events, record, gate) = (events.clone(), record.clone(), gate.clone());
        async move {
            if message[0] == "REQ" {
                let bound = |name: &str| message[2][name].as_i64().unwrap();
                // An empty page is followed by a request for one event of the same window.
                if message[2]["limit"] != 1 {
                    record.lock().unwrap().push((bound("since"), bound("until")));
                }
                gate.pass().await;
                serve_req(&client, &message, &events, 500).await;
            }
        }
    })
    .await;
    (fake, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_and_fifty_triggers_ask_for_each_window_once() {
    let (world, gate) = (MirrorWorld::new().await, Gate::default());
    let events = notes(&Keys::generate(), 100, world.db_now().await - 60, 800);
    let (fake, asked) = gated_relay(&events, &gate).await;
    let upstream = world.upstream(&fake.url, json!({"config": hours(24)})).await;
    let _workers = (start(&world), start(&world));
    let mode = LaneKind::Backfill;
    for batch in 1..=5 {
        let triggers =
            (0..10).map(|_| orchestrate::dispatch(&world.db, mode, Some(upstream.id), true));
        futures_util::future::join_all(triggers).await;
        // The next batch comes while the next window is under way.
        reached(&gate, batch).await;
        gate.let_through(1);
    }
    gate.open();
    within(RECOVERY, "history is done", async || is_completed(&world, &upstream).await).await;
    assert_eq!(world.stored().await, ids(&events));
    let mut windows = asked.lock().unwrap().clone();
    let count = windows.len();
    windows.dedup();
    assert_eq!(windows.len(), count, "none twice in a row");
    let is_descending = windows.windows(2).all(|pair| pair[1].1 <= pair[0].1);
    assert!(is_descending, "two chains would cross: {windows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_stopped_past_its_lease_writes_nothing_more() {
    let (world, gate) = (MirrorWorld::new().await, Gate::default());
    let events = notes(&Keys::generate(), 100, world.db_now().await - 60, 800);
    let (fake, _) = gated_relay(&events, &gate).await;
    let upstream = world.upstream(&fake.url, json!({"config": hours(24)})).await;
    let mut old = start(&world);
    world.trigger(&upstream, LaneKind::Backfill).await;
    gate.let_through(3);
    reached(&gate, 4).await;
    assert!(stored(&world, &upstream).await > 0);
    old.freeze(&world.db).await;
    world.expire_workers().await;
    world.silence_lanes(Duration::from_mins(11)).await;
    gate.open();
    let _new = start(&world);
    within(RECOVERY, "history is done", async || is_completed(&world, &upstream).await).await;
    let before = world.lane(&upstream, LaneKind::Backfill).await;

    old.signal(Signal::SIGCONT);
    eventually("it sees that it lost the lane", async || old.log().contains("lease lost")).await;
    let after = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!(
        (after.status, after.received, after.stored),
        (before.status, before.received, before.stored)
    );
    assert_eq!(world.stored().await, ids(&events));
    old.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_hands_its_lane_on_at_once() {
    let (world, gate) = (MirrorWorld::new().await, Gate::default());
    let events = notes(&Keys::generate(), 100, world.db_now().await - 60, 800);
    let (fake, _) = gated_relay(&events, &gate).await;
    let upstream = world.upstream(&fake.url, json!({"config": hours(24)})).await;
    let mut worker = start(&world);
    world.trigger(&upstream, LaneKind::Backfill).await;
    gate.let_through(2);
    reached(&gate, 3).await;
    worker.signal(Signal::SIGTERM);
    assert!(worker.wait().await.success(), "{}", worker.log());
    let (held,): (i64,) =
        sqlx::query_as("select count(*) from apalis.jobs where lock_by is not null")
            .fetch_one(&world.db)
            .await
            .unwrap();
    assert_eq!(held, 0);
    let before = stored(&world, &upstream).await;
    gate.open();
    let _other = start(&world);
    eventually("it goes on", async || stored(&world, &upstream).await > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_on_one_relay_is_pushed_to_the_other_and_does_not_come_back() {
    let (world, a, b) =
        (MirrorWorld::new().await, RealRelay::start().await, RealRelay::start().await);
    let echoes = Arc::new(Mutex::new(0));
    let counted = echoes.clone();
    let spy = spy(&a.url, move |message: &str| {
        if message.starts_with(r#"["EVENT""#) {
            *counted.lock().unwrap() += 1;
        }
    })
    .await;
    let from = world.upstream(&spy.url, json!({"direction": "both", "live": true})).await;
    let fields = json!({"direction": "up", "live": true, "config": {"upload_delay_ms": 0}});
    let to = world.upstream(&b.url, fields).await;
    let _worker = start(&world);
    eventually("the subscription stands", async || {
        let live: i64 = sqlx::query_scalar(
            "select count(*) from lane where lane = 'live' and status = 'syncing'",
        )
        .fetch_one(&world.db)
        .await
        .unwrap();
        let realtime: i64 = sqlx::query_scalar(
            "select count(*) from lane where lane = 'realtime' and cursor_at is not null",
        )
        .fetch_one(&world.db)
        .await
        .unwrap();
        live == 1 && realtime == 1
    })
    .await;
    let events = notes(&Keys::generate(), 20, world.db_now().await, 0);
    a.add(&events).await;
    // No recurring job runs: the live subscription alone brings and pushes them.
    within(RECOVERY, "the other relay has them", async || {
        world.lane(&to, LaneKind::Upload).await.uploaded == 20
    })
    .await;
    assert_eq!(b.ids().await, ids(&events));
    // Only when the upload lane of the first relay has passed all events could one have gone back.
    let newest: i64 =
        sqlx::query_scalar("select max(position) from event").fetch_one(&world.db).await.unwrap();
    within(RECOVERY, "the events were considered for the first relay, too", async || {
        let lane = world.lane(&from, LaneKind::Upload).await;
        lane.upload_position >= newest && lane.status == "idle"
    })
    .await;
    assert_eq!(*echoes.lock().unwrap(), 0, "nothing goes back to where it came from");
    assert_eq!(world.lane(&from, LaneKind::Upload).await.uploaded, 0);
}
