//! Attempts of a lane's job: why it retries, whose fault it is, and what progress is worth.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use nostr::key::Keys;
use serde_json::json;
use tender_jobs::{
    mirror::{
        MIRROR, UPLOADS,
        event::{
            self,
            outgoing::{self, Verdict},
        },
        lane::{self, Claim, Condition, LaneKind, LaneState, Lease, Progress},
        upstream::{self, Upstream},
    },
    queue::{self, DEAD_AFTER, Job},
};
use tender_workers::{mirror::recover_now, runtime::STUCK_AFTER};

use crate::support::{
    Bracket,
    api::TestApi,
    mirror::{Mirror, MirrorWorld, days},
    relays::{FakeRelay, RealRelay, as_json, notes, serve_req},
};

/// A relay that closes its first `failures` requests with an error of its own.
async fn failing(world: &Mirror, failures: usize) -> FakeRelay {
    let events = as_json(&notes(&Keys::generate(), 5, world.db_now().await - 60, 60));
    let asked = Arc::new(AtomicUsize::new(0));
    FakeRelay::start(move |client, message| {
        let (events, asked) = (events.clone(), asked.clone());
        async move {
            if message[0] == "REQ" && asked.fetch_add(1, Ordering::SeqCst) < failures {
                client.send(json!(["CLOSED", message[1], "error: the disk is full"])).await;
            } else if message[0] == "REQ" {
                serve_req(&client, &message, &events, 500).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_retrying_lane_says_which_attempt_failed_why_and_when_the_next_is_due() {
    let world = MirrorWorld::new().await;
    let fake = failing(&world, 2).await;
    let upstream = world.upstream(&fake.url, json!({})).await;
    world.trigger(&upstream, LaneKind::Realtime).await;
    for attempt in 1..=2 {
        let (ran, bracket) = Bracket::of(&world.db, world.step()).await;
        assert!(ran);
        let lane = world.lane(&upstream, LaneKind::Realtime).await;
        assert_eq!(lane.condition(), Condition::Retrying);
        assert_eq!((lane.failed_attempts, lane.allowed_attempts), (attempt, 5));
        assert!(lane.last_error.unwrap().contains("the disk is full"));
        assert!(bracket.allows(
            lane.last_error_at.unwrap(),
            std::time::Duration::ZERO..=std::time::Duration::ZERO
        ));
        let wait = (lane.next_attempt_at.unwrap() - lane.last_error_at.unwrap()).num_seconds();
        assert!((2..=21).contains(&wait), "{wait}");
        assert_eq!(lane.last_synced_at, None, "a failure is no sync");
        world.make_due().await;
    }
    assert!(world.step().await);
    let lane = world.lane(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.condition(), lane.stored), (Condition::Idle, 5));
    assert_eq!((lane.last_error, lane.failed_attempts, lane.next_attempt_at), (None, 0, None));
    assert!(lane.last_synced_at.is_some());
}

#[tokio::test]
async fn attempts_that_move_the_lane_on_never_run_out() {
    let world = MirrorWorld::new().await;
    let events = as_json(&notes(&Keys::generate(), 100, world.db_now().await - 60, 60));
    let asked = Arc::new(AtomicUsize::new(0));
    let fake = FakeRelay::start(move |client, message| {
        let (events, asked) = (events.clone(), asked.clone());
        async move {
            if message[0] == "REQ" && asked.fetch_add(1, Ordering::SeqCst) % 5 == 4 {
                client.send(json!(["CLOSED", message[1], "error: overloaded"])).await;
            } else if message[0] == "REQ" {
                serve_req(&client, &message, &events, 500).await;
            }
        }
    })
    .await;
    let mut config = days(1);
    config["poll_page_limit"] = json!(5);
    config["checkpoint_interval"] = json!(1);
    let upstream = world.upstream(&fake.url, json!({ "config": config })).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    for _ in 0..40 {
        world.drain().await;
        world.make_due().await;
        let lane = world.lane(&upstream, LaneKind::Backfill).await;
        assert_ne!(lane.status, "error", "{lane:?}");
    }
    let lane = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.stored), ("completed", 100));
}

/// A lane in error whose rest is over.
async fn rested(world: &MirrorWorld, upstream: &Upstream) -> LaneState {
    let lane = world.mirror(upstream, LaneKind::Realtime).await;
    assert_eq!(lane.status, "error");
    sqlx::query("update lane set retry_at = now() - interval '1 s' where status = 'error'")
        .execute(&world.db)
        .await
        .unwrap();
    lane
}

#[tokio::test]
async fn recovery_starts_a_lane_that_has_rested_and_it_counts_as_failed_until_it_succeeds() {
    let world = MirrorWorld::new().await;
    let refusing = FakeRelay::start(|client, message| async move {
        if message[0] == "REQ" {
            client.send(json!(["CLOSED", message[1], "restricted: members only"])).await;
        }
    })
    .await;
    let upstream = world.upstream(&refusing.url, json!({})).await;
    rested(&world, &upstream).await;
    let recovered = recover_now(&world.db, None, None).await.unwrap();
    assert_eq!((recovered.stale.len(), recovered.errors.len()), (0, 1));
    assert!(recovered.errors[0].error.as_ref().unwrap().contains("members only"));
    let lane = world.lane(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), lane.consecutive_failures), ("idle", 1));
    assert_eq!(lane.condition(), Condition::Retrying);
    assert!(lane.last_error.unwrap().contains("members only"));
    world.drain().await;
    assert_eq!(world.lane(&upstream, LaneKind::Realtime).await.consecutive_failures, 2);
}

/// Fetches, starts and claims the lane's job.
async fn claimed(world: &MirrorWorld, queue: &str, lane: uuid::Uuid) -> (Job, Box<Lease>) {
    let job = world.fetch_of(queue).await.expect("the job is due");
    queue::start(&world.db, &job).await.unwrap();
    let stale = std::time::Duration::from_mins(10);
    match lane::claim(&world.db, lane, &job, stale).await.unwrap() {
        Claim::Held(lease) => (job, lease),
        other => panic!("not held: {other:?}"),
    }
}

/// The worker dies, and another process rescues its job.
async fn die(world: &MirrorWorld) {
    world.expire_workers().await;
    let (rescued, _) = queue::rescue(&world.db, DEAD_AFTER, STUCK_AFTER).await.unwrap();
    assert_eq!(rescued.requeued, 1);
}

#[tokio::test]
async fn deaths_after_progress_are_forgiven() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::start().await;
    let upstream = world.upstream(&relay.url, json!({"config": days(1)})).await;
    let lane = world.trigger(&upstream, LaneKind::Backfill).await.lane.unwrap();
    for round in 0..12 {
        let (_, lease) = claimed(&world, MIRROR, lane).await;
        assert!(lease.deaths <= 1, "round {round}: {}", lease.deaths);
        let until = lease.lane.backfill_until.unwrap() - 60;
        let progress = Progress { backfill_until: Some(until), ..Progress::default() };
        assert!(lane::checkpoint(&world.db, &lease, &progress).await.unwrap());
        die(&world).await;
    }
    world.drain().await;
    assert_eq!(world.lane(&upstream, LaneKind::Backfill).await.status, "completed");
}

#[tokio::test]
async fn verdicts_are_progress_of_an_upload() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::start().await;
    let upstream = world.upstream(&relay.url, json!({"direction": "up"})).await;
    let lane = world.trigger(&upstream, LaneKind::Upload).await.lane.unwrap();
    for (round, event) in notes(&Keys::generate(), 6, world.db_now().await, 1).iter().enumerate() {
        let (_, lease) = claimed(&world, UPLOADS, lane).await;
        assert_eq!(lease.deaths, 0, "round {round}");
        let id = event::EventId(event.id.to_bytes());
        let verdicts = [(id, Verdict::Accepted)];
        let reached = outgoing::Reached::default();
        outgoing::judge(&world.db, &lease, &verdicts, reached).await.unwrap();
        die(&world).await;
    }
    world.drain().await;
    let lane = world.lane(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.status.as_str(), lane.uploaded), ("idle", 6));
}

#[tokio::test]
async fn deaths_without_progress_fail_the_lane_and_blame_the_worker() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::start().await;
    let upstream = world.upstream(&relay.url, json!({"config": days(1)})).await;
    let lane = world.trigger(&upstream, LaneKind::Backfill).await.lane.unwrap();
    for deaths in 0..5 {
        let (_, lease) = claimed(&world, MIRROR, lane).await;
        assert_eq!(lease.deaths, deaths);
        die(&world).await;
    }
    assert!(world.step().await);
    let lane = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!(lane.status, "error");
    assert_eq!(
        lane.window_seconds,
        Some(43_200),
        "half: it may have been too large for the worker"
    );
    assert_eq!(lane.last_synced_at, None, "a failure is no sync");
    let error = lane.error_message.unwrap();
    for words in
        ["our worker died in 5 attempts", "the upstream is not the cause", "tender workers"]
    {
        assert!(error.contains(words), "{error}");
    }
}

/// The lines of `/metrics` that name the upstream, from an API that has measured nothing yet.
async fn metrics_of(api: &TestApi, upstream: &Upstream) -> Vec<String> {
    let (base_url, _running) = api.beside(|_| {}).await;
    let page = api.http.get(format!("{base_url}/metrics")).send().await.unwrap();
    let page = page.text().await.unwrap();
    page.lines().filter(|line| line.contains(&upstream.url)).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_metric_of_a_failed_lane_lasts_until_a_run_succeeds_and_goes_with_the_upstream() {
    let api = TestApi::new().await;
    let mirror = api.world.mirror();
    let fake = failing(&api.world.mirror(), 5).await;
    let upstream = mirror.upstream(&fake.url, json!({})).await;
    mirror.trigger(&upstream, LaneKind::Realtime).await;
    let failed = |lines: &[String]| {
        lines.iter().any(|line| line.starts_with("tender_lane_failed{") && line.ends_with(" 1"))
    };
    for attempt in 1..=5 {
        assert!(!failed(&metrics_of(&api, &upstream).await), "attempt {attempt}");
        assert!(mirror.step().await);
        // The alert counts a lane that only retries, too.
        let attempts = format!(" {attempt}");
        let retries = |line: &&String| line.starts_with("tender_lane_failed_attempts{");
        let lines = metrics_of(&api, &upstream).await;
        assert!(lines.iter().find(retries).is_some_and(|line| line.ends_with(&attempts)));
        mirror.make_due().await;
    }
    assert!(failed(&metrics_of(&api, &upstream).await));
    recover_now(&mirror.db, None, Some(std::time::Duration::ZERO)).await.unwrap();
    assert_eq!(mirror.lane(&upstream, LaneKind::Realtime).await.status, "idle");
    assert!(failed(&metrics_of(&api, &upstream).await), "a retry is no success");
    mirror.drain().await;
    assert!(!failed(&metrics_of(&api, &upstream).await));

    upstream::delete(&mirror.db, upstream.id, None).await.unwrap();
    mirror.drain().await;
    assert_eq!(metrics_of(&api, &upstream).await, Vec::<String>::new());
}
