//! Lanes: one holder, fenced; what each state leads to; who is skipped and why.

use std::time::Duration;

use nostr::key::Keys;
use serde_json::json;
use tender_jobs::{
    lane::{self, Claim, Ending, LaneKind, Lease, Progress},
    queue::{self, Job, JobState, Settled},
    upstream::{self, Upstream, settings::Settings},
};
use tender_workers::sync::{self, orchestrate};

use crate::support::{
    World,
    relays::{FakeRelay, RealRelay, as_json, notes, serve_req},
    sync::days,
};

const STALE: Duration = Duration::from_mins(10);

/// A lane whose job was fetched and started.
async fn started(world: &World) -> (Upstream, Job, uuid::Uuid) {
    let upstream = world.upstream("ws://127.0.0.1:1", json!({})).await;
    let lane = world.trigger(&upstream, LaneKind::Backfill).await.lane.unwrap();
    let job = world.fetch_of(queue::SYNC).await.unwrap();
    assert!(queue::start(&world.db, &job).await.unwrap());
    (upstream, job, lane)
}

async fn held(world: &World, lane: uuid::Uuid, job: &Job) -> Box<Lease> {
    match lane::claim(&world.db, lane, job, STALE).await.unwrap() {
        Claim::Held(lease) => lease,
        other => panic!("not held: {other:?}"),
    }
}

fn other(job: &Job) -> Job {
    Job { id: "01AN4Z07BY79KA1307SR9X4MV3".to_owned(), ..job.clone() }
}

#[tokio::test]
async fn a_lane_has_one_holder_and_its_own_job_comes_back_at_once() {
    let world = World::new().await;
    let (_, job, lane) = started(&world).await;
    let first = held(&world, lane, &job).await;
    assert!(matches!(
        lane::claim(&world.db, lane, &other(&job), STALE).await.unwrap(),
        Claim::Busy
    ));
    // The job died with its worker and came back: no waiting.
    let second = held(&world, lane, &job).await;
    assert_eq!(second.epoch, first.epoch + 1);
    world.silence_lanes(Duration::from_secs(601)).await;
    let third = held(&world, lane, &other(&job)).await;
    assert_eq!(third.epoch, second.epoch + 1);
}

#[tokio::test]
async fn who_lost_the_lane_writes_nothing_more() {
    let world = World::new().await;
    let (upstream, job, lane) = started(&world).await;
    let old = held(&world, lane, &job).await;
    let _new = held(&world, lane, &job).await;

    let progress = Progress { received: 7, backfill_until: Some(1), ..Progress::default() };
    assert!(!lane::checkpoint(&world.db, &old, &progress).await.unwrap());
    assert_eq!(lane::beat(&world.db, &old).await.unwrap(), lane::Beat::Lost);
    let ending = Ending::GoesOn(Duration::ZERO);
    let settled = lane::settle(&world.db, &job, &old, &progress, &ending, &[], &json!(null)).await;
    assert_eq!(settled.unwrap(), Settled::LeaseLost);
    assert_eq!(world.lane(&upstream, LaneKind::Backfill).await.received, 0);
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Running);
}

#[tokio::test]
async fn the_next_job_is_there_with_the_progress_or_not_at_all() {
    let world = World::new().await;
    let (upstream, job, lane) = started(&world).await;
    let lease = held(&world, lane, &job).await;
    let until = lease.lane.backfill_until.unwrap();
    let progress =
        Progress { backfill_until: Some(until - 100), received: 3, ..Progress::default() };
    let ending = Ending::GoesOn(Duration::ZERO);
    let settled = lane::settle(&world.db, &job, &lease, &progress, &ending, &[], &json!(1)).await;
    assert_eq!(settled.unwrap(), Settled::Written(()));

    let state = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!(
        (state.backfill_until, state.received, state.status.as_str()),
        (Some(until - 100), 3, "syncing")
    );
    let next = world.fetch_of(queue::SYNC).await.expect("the next window's job");
    assert_eq!(state.lease_owner.as_deref(), Some(next.id.as_str()));
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Done);
    // Settled twice, as after a lost answer: nothing is counted twice.
    let again = lane::settle(&world.db, &job, &lease, &progress, &ending, &[], &json!(1)).await;
    assert_eq!(again.unwrap(), Settled::LeaseLost);
    assert_eq!(world.lane(&upstream, LaneKind::Backfill).await.received, 3);
}

#[tokio::test]
async fn progress_never_goes_the_wrong_way() {
    let world = World::new().await;
    let (upstream, job, lane) = started(&world).await;
    let lease = held(&world, lane, &job).await;
    let (until, target) = (lease.lane.backfill_until.unwrap(), lease.lane.backfill_target.unwrap());
    for (written, wanted) in [(until - 50, until - 50), (until, until - 50), (0, target)] {
        let progress = Progress { backfill_until: Some(written), ..Progress::default() };
        assert!(lane::checkpoint(&world.db, &lease, &progress).await.unwrap());
        let state = world.lane(&upstream, LaneKind::Backfill).await;
        assert_eq!(state.backfill_until, Some(wanted));
    }
    for (written, wanted) in [(500, 500), (400, 500)] {
        let progress = Progress {
            cursor_at: Some(written),
            upload_position: Some(written),
            ..Progress::default()
        };
        assert!(lane::checkpoint(&world.db, &lease, &progress).await.unwrap());
        let state = world.lane(&upstream, LaneKind::Backfill).await;
        assert_eq!((state.cursor_at, state.upload_position), (Some(wanted), wanted));
    }
}

#[tokio::test]
async fn an_unreachable_relay_is_tried_five_times_and_then_rests() {
    let world = World::new().await;
    let upstream = world.upstream("ws://127.0.0.1:1", json!({})).await;
    world.trigger(&upstream, LaneKind::Realtime).await;
    for wait in [3.0, 18.0, 83.0, 258.0] {
        assert!(world.step().await);
        let (due,): (f64,) = sqlx::query_as(
            "select extract(epoch from run_at - now())::float8 from apalis.jobs where status = 'Failed'",
        )
        .fetch_one(&world.db)
        .await
        .unwrap();
        assert!((wait - 1.0..=wait * 1.16).contains(&due), "{due} s instead of {wait}");
        assert_eq!(world.lane(&upstream, LaneKind::Realtime).await.status, "syncing");
        world.make_due().await;
    }
    assert!(world.step().await);
    let lane = world.lane(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), lane.consecutive_failures), ("error", 1));
    assert!(lane.error_message.unwrap().contains("failed to connect to ws://127.0.0.1:1"));
    let rest = (lane.retry_at.unwrap() - queue::now(&world.db).await.unwrap()).num_seconds();
    assert!((1790..=1800).contains(&rest), "{rest}");

    let settings = Settings::default();
    let tick = orchestrate::dispatch(&world.db, &settings, LaneKind::Realtime, None, false).await;
    assert_eq!(tick.unwrap()[0].skipped, Some("resting after an error"));
    assert_eq!(world.trigger(&upstream, LaneKind::Realtime).await.skipped, None);
}

#[tokio::test]
async fn a_second_failure_rests_twice_as_long_and_a_clean_run_forgets_both() {
    let world = World::new().await;
    let fake = FakeRelay::start(|client, message| async move {
        if message[0] == "REQ" {
            client.send(json!(["CLOSED", message[1], "restricted: members only"])).await;
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({})).await;
    for minutes in [30, 60, 120] {
        let lane = world.sync(&upstream, LaneKind::Realtime).await;
        assert_eq!(lane.status, "error");
        assert!(lane.error_message.unwrap().contains("members only"));
        let rest = (lane.retry_at.unwrap() - queue::now(&world.db).await.unwrap()).num_seconds();
        assert!((60 * minutes - 10..=60 * minutes).contains(&rest), "{rest}");
    }
    let relay = RealRelay::start().await;
    let upstream = world.change_upstream(&upstream, json!({"url": relay.url})).await;
    let lane = world.sync(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), lane.consecutive_failures), ("idle", 0));
}

#[tokio::test]
async fn recovery_frees_what_is_stuck_and_what_has_rested() {
    let world = World::new().await;
    let (stuck, job, lane) = started(&world).await;
    let old = held(&world, lane, &job).await;
    let settings = Settings::default();
    let nothing = sync::recover_now(&world.db, &settings, None, None).await.unwrap();
    assert_eq!((nothing.stale.len(), nothing.errors.len()), (0, 0));
    world.silence_lanes(Duration::from_secs(601)).await;
    assert!(world.lane(&stuck, LaneKind::Backfill).await.is_stale);

    let freed = sync::recover_now(&world.db, &settings, None, None).await.unwrap();
    assert_eq!((freed.stale.len(), freed.errors.len()), (1, 0));
    let state = world.lane(&stuck, LaneKind::Backfill).await;
    assert_eq!(state.status, "idle");
    assert!(!lane::checkpoint(&world.db, &old, &Progress::default()).await.unwrap());
    let forced =
        sync::recover_now(&world.db, &settings, Some(Duration::ZERO), Some(Duration::ZERO));
    assert_eq!(forced.await.unwrap().stale.len(), 0);
}

#[tokio::test]
async fn who_has_no_work_is_skipped_with_the_reason() {
    let world = World::new().await;
    let disabled = world.upstream("ws://a.test", json!({"enabled": false})).await;
    let up = world.upstream("ws://b.test", json!({"direction": "up"})).await;
    let down = world.upstream("ws://c.test", json!({"backfill": false})).await;
    let excluded = Some("its direction or its backfill flag excludes this mode");
    for (upstream, mode, skipped) in [
        (&disabled, LaneKind::Realtime, Some("disabled")),
        (&up, LaneKind::Realtime, excluded),
        (&up, LaneKind::Backfill, excluded),
        (&down, LaneKind::Backfill, excluded),
        (&down, LaneKind::Upload, excluded),
        (&down, LaneKind::Realtime, None),
        (&up, LaneKind::Upload, None),
    ] {
        assert_eq!(world.trigger(upstream, mode).await.skipped, skipped, "{} {mode}", upstream.url);
    }
    let settings = Settings::default();
    let tick = orchestrate::dispatch(&world.db, &settings, LaneKind::Upload, None, false).await;
    assert_eq!(tick.unwrap()[1].skipped, Some("already waiting"));
}

#[tokio::test]
async fn fifty_triggers_make_one_job() {
    let world = World::new().await;
    let upstream = world.upstream("ws://127.0.0.1:1", json!({})).await;
    let settings = Settings::default();
    let triggers = (0..50).map(|_| {
        orchestrate::dispatch(&world.db, &settings, LaneKind::Backfill, Some(upstream.id), true)
    });
    for dispatched in futures_util::future::join_all(triggers).await {
        assert_eq!(dispatched.unwrap().len(), 1);
    }
    let filter = queue::JobFilter { queue: Some(queue::SYNC.to_owned()), ..Default::default() };
    assert_eq!(queue::jobs(&world.db, &filter, 100).await.unwrap().len(), 1);
    let (lanes,): (i64,) =
        sqlx::query_as("select count(*) from lane").fetch_one(&world.db).await.unwrap();
    assert_eq!(lanes, 1);
}

#[tokio::test]
async fn a_disabled_relay_pauses_and_goes_on_where_it_was() {
    let world = World::new().await;
    let relay = RealRelay::start().await;
    relay.add(&notes(&Keys::generate(), 50, world.db_now().await - 60, 3600)).await;
    let upstream = world.upstream(&relay.url, json!({"config": days(5)})).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    assert!(world.step().await);
    let before = world.lane(&upstream, LaneKind::Backfill).await;
    let upstream = world.change_upstream(&upstream, json!({"enabled": false})).await;
    world.drain().await;
    let paused = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((paused.status.as_str(), paused.backfill_until), ("idle", before.backfill_until));

    let upstream = world.change_upstream(&upstream, json!({"enabled": true})).await;
    let lane = world.sync(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.stored), ("completed", 50));
}

#[tokio::test]
async fn a_deleted_relay_takes_its_lanes_along_and_fails_no_job() {
    let world = World::new().await;
    let (upstream, job, _) = started(&world).await;
    world.trigger(&upstream, LaneKind::Realtime).await;
    assert!(upstream::delete(&world.db, upstream.id).await.unwrap());
    world.drain().await;
    let (lanes,): (i64,) =
        sqlx::query_as("select count(*) from lane").fetch_one(&world.db).await.unwrap();
    assert_eq!(lanes, 0);
    let filter = queue::JobFilter { queue: Some(queue::SYNC.to_owned()), ..Default::default() };
    for summary in queue::jobs(&world.db, &filter, 100).await.unwrap() {
        let wanted = if summary.id == job.id { JobState::Running } else { JobState::Done };
        assert_eq!(summary.state, wanted);
    }
}

#[tokio::test]
async fn a_longer_history_opens_a_completed_backfill_and_another_filter_starts_anew() {
    let world = World::new().await;
    let events = as_json(&notes(&Keys::generate(), 10, world.db_now().await - 60, 3600));
    let fake = FakeRelay::start(move |client, message| {
        let events = events.clone();
        async move {
            if message[0] == "REQ" {
                serve_req(&client, &message, &events, 500).await;
            }
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({"config": days(1)})).await;
    let done = world.sync(&upstream, LaneKind::Backfill).await;
    assert_eq!(world.trigger(&upstream, LaneKind::Backfill).await.skipped, Some("complete"));
    let upstream = world.change_upstream(&upstream, json!({"config": days(3)})).await;
    let longer = world.sync(&upstream, LaneKind::Backfill).await;
    assert_eq!(longer.status, "completed");
    assert_eq!(longer.backfill_target.unwrap(), done.backfill_target.unwrap() - 2 * 86_400);

    let mut config = days(1);
    config["event_kinds"] = json!([7]);
    let upstream = world.change_upstream(&upstream, json!({ "config": config })).await;
    let anew = world.sync(&upstream, LaneKind::Backfill).await;
    assert_ne!(anew.id, longer.id);
    assert_eq!((anew.violations, anew.status.as_str()), (0, "error"), "the fake knows no kinds");
}

#[tokio::test]
async fn a_full_run_looks_at_everything_again() {
    let world = World::new().await;
    let (relay, keys) = (RealRelay::start().await, Keys::generate());
    let now = world.db_now().await;
    let events = notes(&keys, 20, now - 60, 3600);
    relay.add(&events[..10]).await;
    let upstream = world.upstream(&relay.url, json!({"negentropy": true, "config": days(2)})).await;
    world.sync(&upstream, LaneKind::Backfill).await;
    relay.add(&events[10..]).await; // what was published late, with an old date

    let full = world.sync(&upstream, LaneKind::Full).await;
    assert_eq!((full.status.as_str(), full.stored), ("completed", 10));
    assert_eq!(world.stored().await.len(), 20);
    let again = world.sync(&upstream, LaneKind::Full).await;
    assert_eq!(
        (again.status.as_str(), again.received),
        ("completed", 10),
        "nothing more was fetched"
    );
}
