//! Connections as jobs see them: their number, their addresses, the sizes of what they carry, and
//! upstreams that want us to wait or to authenticate.

use std::sync::Arc;

use nostr::key::Keys;
use serde_json::{Value, json};
use tender::demo::zooid::Gate;
use tender_jobs::{
    mirror::{
        lane::LaneKind,
        upstream::{self, Change, settings},
    },
    queue::JobState,
};
use tender_workers::mirror::{Settings, orchestrate};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    eventually,
    mirror::{MirrorWorld, days, settings},
    patiently,
    relays::{FakeRelay, RealRelay, as_json, ids, note, notes, serve_req},
};

/// A relay that serves these events as NIP-01 says.
async fn serving(events: Vec<Value>) -> FakeRelay {
    let events = Arc::new(events);
    FakeRelay::start(move |client, message| {
        let events = events.clone();
        async move {
            if message[0] == "REQ" {
                serve_req(&client, &message, &events, 500).await;
            }
        }
    })
    .await
}

fn with_connections(jobs: u64) -> Settings {
    let defaults =
        settings::Settings { max_concurrent_connections: jobs, ..settings::Settings::default() };
    Settings { defaults, ..settings() }
}

#[tokio::test]
async fn an_event_of_any_size_is_rejected_and_its_neighbours_are_stored() {
    let world = MirrorWorld::new().await;
    let keys = Keys::generate();
    let now = world.db_now().await;
    let good = notes(&keys, 20, now - 10, 10);
    let mut events = as_json(&good);
    for (at, size) in [(15, 300_000), (35, 1_100_000), (55, 6_000_000)] {
        events.push(serde_json::to_value(note(&keys, now - at, &"x".repeat(size))).unwrap());
    }
    let fake = serving(events).await;
    let upstream = world.upstream(&fake.url, json!({})).await;
    let lane = world.mirror(&upstream, LaneKind::Realtime).await;
    assert_eq!(world.stored().await, ids(&good));
    assert_eq!((lane.status.as_str(), lane.rejected), ("idle", 3));
    assert_eq!(world.rejections().await, [("too-large".to_owned(), 3)]);
}

#[tokio::test]
async fn a_private_address_is_not_reached_unless_the_operator_allows_it() {
    let world = MirrorWorld::with(Settings { allow_private: false, ..settings() }).await;
    let event = note(&Keys::generate(), world.db_now().await - 10, "inside");
    let fake = serving(as_json(std::slice::from_ref(&event))).await;
    let upstream = world.upstream(&fake.url, json!({})).await;
    world.trigger(&upstream, LaneKind::Realtime).await;
    assert!(world.step().await);
    let lane = world.lane(&upstream, LaneKind::Realtime).await;
    assert_eq!(fake.connections.load(std::sync::atomic::Ordering::SeqCst), 0);
    let jobs: Vec<(Value,)> =
        sqlx::query_as("select last_result from apalis.jobs").fetch_all(&world.db).await.unwrap();
    let said = format!("{lane:?} {jobs:?}");
    assert!(said.contains("no public address"), "{said}");

    let allowed = Change { allow_private: Some(true), ..Change::default() };
    let upstream = upstream::update(&world.db, upstream.id, &allowed).await.unwrap();
    world.make_due().await;
    world.drain().await;
    assert_eq!(world.stored().await, ids(&[event]));

    // The permission is one for this host.
    let moved = Change { url: Some("ws://10.0.0.1".to_owned()), ..Change::default() };
    let upstream = upstream::update(&world.db, upstream.id, &moved).await.unwrap();
    assert!(!upstream.allow_private);
}

#[tokio::test]
async fn a_job_without_a_connection_waits_without_an_attempt_and_an_idle_one_gives_way() {
    let world = MirrorWorld::with(with_connections(1)).await;
    let event = note(&Keys::generate(), world.db_now().await - 10, "held");
    let (gate, held) = (Gate::default(), Arc::new(as_json(std::slice::from_ref(&event))));
    let pass = gate.clone();
    let slow = FakeRelay::start(move |client, message| {
        let (pass, held) = (pass.clone(), held.clone());
        async move {
            if message[0] == "REQ" {
                pass.pass().await;
                serve_req(&client, &message, &held, 500).await;
            }
        }
    })
    .await;
    let other = serving(Vec::new()).await;
    let first = world.upstream(&slow.url, json!({})).await;
    let second = world.upstream(&other.url, json!({})).await;
    world.trigger(&first, LaneKind::Realtime).await;
    let job = world.fetch_of("mirror").await.unwrap();
    let running = tokio::spawn(tender_workers::mirror::run(world.context.clone(), job));
    patiently("the first job waits for its page", gate.reached(1)).await;

    world.trigger(&second, LaneKind::Realtime).await;
    let job = world.fetch_of("mirror").await.unwrap();
    let id = job.id.clone();
    tender_workers::mirror::run(world.context.clone(), job).await;
    let waiting = world.job_by_id(&id).await;
    assert_eq!((waiting.summary.state, waiting.summary.attempts), (JobState::Waiting, 0));
    postpone(&world, &id).await;

    gate.open();
    patiently("the first job ends", running).await.unwrap();
    assert!(is_due(&world, &id).await, "the end of the first job makes the waiting one due");
    world.drain().await;
    assert_eq!(world.stored().await, ids(&[event]));
    for upstream in [&first, &second] {
        assert_eq!(world.lane(upstream, LaneKind::Realtime).await.status, "idle");
    }
    assert_eq!(world.context.connections.open(), 1, "the idle one gave way");
}

/// Moves a waiting job an hour into the future.
async fn postpone(world: &MirrorWorld, job: &str) {
    sqlx::query("update apalis.jobs set run_at = now() + interval '1 h' where id = $1")
        .bind(job)
        .execute(&world.db)
        .await
        .unwrap();
}

async fn is_due(world: &MirrorWorld, job: &str) -> bool {
    sqlx::query_scalar("select run_at <= now() from apalis.jobs where id = $1")
        .bind(job)
        .fetch_one(&world.db)
        .await
        .unwrap()
}

#[tokio::test]
async fn sixty_upstreams_twenty_of_them_live_starve_nobody() {
    let world = MirrorWorld::with(with_connections(10)).await;
    let keys = Keys::generate();
    let now = world.db_now().await;
    let (mut relays, mut upstreams, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..60 {
        let event = note(&keys, now - 100 - index, "one of each");
        let relay = serving(as_json(std::slice::from_ref(&event))).await;
        let fields = json!({ "live": index < 20, "config": days(1) });
        upstreams.push(world.upstream(&relay.url, fields).await);
        relays.push(relay);
        events.push(event);
    }
    let stop = CancellationToken::new();
    let workers = world.run_workers(stop.clone());
    let ticks = async {
        for mode in [LaneKind::Realtime, LaneKind::Backfill, LaneKind::Realtime] {
            // By hand: the jobs of a scheduled run start within 30 s, these all at once.
            orchestrate::dispatch(&world.db, mode, None, true).await.unwrap();
            eventually("the tick is worked off", async || {
                let open: i64 = sqlx::query_scalar(
                    "select count(*) from apalis.jobs
                     where status in ('Pending', 'Queued', 'Running', 'Failed')",
                )
                .fetch_one(&world.db)
                .await
                .unwrap();
                open == 0
            })
            .await;
        }
        let is_live = |relay: &FakeRelay| relay.verbs("REQ").iter().any(|m| m[2]["limit"] == 0);
        eventually("all subscriptions stand", async || relays[..20].iter().all(is_live)).await;
        stop.cancel();
    };
    tokio::join!(workers, ticks);
    assert_eq!(world.stored().await, ids(&events));
    for upstream in &upstreams {
        let lane = world.lane(upstream, LaneKind::Backfill).await;
        assert_eq!(lane.status, "completed", "{lane:?}");
        assert_eq!(world.lane(upstream, LaneKind::Realtime).await.status, "idle");
    }
    let most: i32 = sqlx::query_scalar("select max(attempts) from apalis.jobs")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert!(most <= 1, "no attempt was spent on waiting: {most}");
}

#[tokio::test]
async fn the_states_of_all_connections_are_stored_at_once_and_unchanged_ones_seldom() {
    let world = MirrorWorld::new().await;
    let mut rows = Vec::new();
    for port in 1..=3 {
        let upstream = world.upstream(&format!("ws://127.0.0.1:{port}"), json!({})).await;
        rows.push(state_of(upstream.id));
    }
    let gone = state_of(uuid::Uuid::new_v4());
    rows.insert(1, gone.clone());
    upstream::note_connections(&world.db, &rows).await.unwrap();
    let stored = upstream::connections(&world.db).await.unwrap();
    assert_eq!(stored.len(), 3, "a deleted upstream has no row, and the others have theirs");

    age(&world, 5).await;
    rows[0].bytes_in = 1;
    let before = upstream::connections(&world.db).await.unwrap();
    upstream::note_connections(&world.db, &rows).await.unwrap();
    let after = upstream::connections(&world.db).await.unwrap();
    for (before, after) in before.iter().zip(&after) {
        let is_changed = after.upstream_id == rows[0].upstream_id;
        assert_eq!(after.bytes_in, i64::from(is_changed));
        assert_eq!(after.updated_at != before.updated_at, is_changed, "{after:?}");
    }

    age(&world, 12).await;
    let before = upstream::connections(&world.db).await.unwrap();
    upstream::note_connections(&world.db, &rows).await.unwrap();
    let after = upstream::connections(&world.db).await.unwrap();
    assert!(before.iter().zip(&after).all(|(before, after)| after.updated_at > before.updated_at));
}

fn state_of(upstream_id: uuid::Uuid) -> upstream::Connection {
    upstream::Connection {
        upstream_id,
        process: "test".to_owned(),
        state: "open".to_owned(),
        subscriptions: 0,
        attempts: 0,
        bytes_in: 0,
        bytes_out: 0,
        error: None,
        updated_at: chrono::DateTime::UNIX_EPOCH,
    }
}

/// Moves the last reports of all connections into the past.
async fn age(world: &MirrorWorld, seconds: i32) {
    sqlx::query("update upstream_connection set updated_at = now() - make_interval(secs => $1)")
        .bind(seconds)
        .execute(&world.db)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_upstream_that_asks_for_time_gets_it() {
    let world = MirrorWorld::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let relay = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _request = stream.read(&mut [0; 4000]).await;
            let answer = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7200\r\n\
                          content-length: 0\r\nconnection: close\r\n\r\n";
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
    });
    let upstream = world.upstream(&url, json!({})).await;
    world.trigger(&upstream, LaneKind::Realtime).await;
    world.step().await;
    let seconds: f64 = sqlx::query_scalar(
        "select extract(epoch from max(run_at) - now())::float8 from apalis.jobs",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert!((7000.0..=7200.0).contains(&seconds), "{seconds}");
    relay.abort();
}

/// Refuses EVENT, NEG-OPEN and REQ until it has seen an AUTH; then serves as a relay without events.
async fn members_only(refusal: &'static str) -> FakeRelay {
    let is_known = Arc::new(std::sync::atomic::AtomicBool::new(false));
    FakeRelay::start(move |client, message| {
        let is_known = is_known.clone();
        async move {
            let order = std::sync::atomic::Ordering::SeqCst;
            let (verb, known) = (message[0].as_str().unwrap_or_default(), is_known.load(order));
            let why = "auth-required: members only";
            if !known && verb != "AUTH" && verb != "CLOSE" {
                client.send(json!(["AUTH", "the challenge"])).await;
            }
            match (verb, known) {
                ("AUTH", _) => {
                    is_known.store(true, order);
                    client.send(json!(["OK", message[1]["id"], true, ""])).await;
                }
                ("EVENT", known) => {
                    let why = if known { "" } else { why };
                    client.send(json!(["OK", message[1]["id"], known, why])).await;
                }
                ("NEG-OPEN", false) => client.send(json!([refusal, message[1], why])).await,
                ("NEG-OPEN", true) => client.send(json!(["NEG-MSG", message[1], "61"])).await,
                ("REQ", false) => client.send(json!(["CLOSED", message[1], why])).await,
                ("REQ", true) => client.send(json!(["EOSE", message[1]])).await,
                _ => {}
            }
        }
    })
    .await
}

#[tokio::test]
async fn uploads_and_reconciliations_authenticate_once_and_go_on() {
    let world = MirrorWorld::with(Settings { key: Some(Keys::generate()), ..settings() }).await;
    let events = notes(&Keys::generate(), 3, world.db_now().await - 60, 1);
    let source = RealRelay::start().await;
    source.add(&events).await;
    let from = world.upstream(&source.url, json!({"config": days(1)})).await;
    world.mirror(&from, LaneKind::Backfill).await;
    let taker = members_only("NEG-ERR").await;
    let to = world.upstream(&taker.url, json!({"direction": "up"})).await;
    assert_eq!(world.mirror(&to, LaneKind::Upload).await.uploaded, 3);
    assert_eq!(taker.verbs("AUTH").len(), 1);

    // khatru says NEG-ERROR.
    for refusal in ["NEG-ERR", "NEG-ERROR"] {
        let relay = members_only(refusal).await;
        let fields = json!({"negentropy": true, "config": days(1)});
        let upstream = world.upstream(&relay.url, fields).await;
        let lane = world.mirror(&upstream, LaneKind::Backfill).await;
        assert_eq!(lane.status, "completed", "{refusal}: {lane:?}");
        assert_eq!(lane.method.as_deref(), Some("negentropy"), "{refusal}");
        assert_eq!(relay.verbs("AUTH").len(), 1, "{refusal}");
    }
}
