//! Lanes: one holder, fenced; what each state leads to; who is skipped and why.

use std::time::Duration;

use serde_json::json;
use tender_jobs::{
    mirror::{
        MIRROR,
        lane::{self, Claim, Ending, LaneKind, Lease, Progress},
        upstream::{self, Upstream},
    },
    queue::{self, Job, JobState, Page, Settled},
};
use tender_workers::mirror::{orchestrate, recover_now};

use crate::support::{
    Bracket, eventually,
    mirror::MirrorWorld,
    relays::{FakeRelay, RealRelay},
};

const STALE: Duration = Duration::from_mins(10);

/// A lane whose job was fetched and started.
async fn started(world: &MirrorWorld) -> (Upstream, Job, uuid::Uuid) {
    let upstream = world.upstream("ws://127.0.0.1:1", json!({})).await;
    let lane = world.trigger(&upstream, LaneKind::Backfill).await.lane.unwrap();
    let job = world.fetch_of(MIRROR).await.unwrap();
    assert_eq!(queue::start(&world.db, &job).await.unwrap(), Settled::Written(()));
    (upstream, job, lane)
}

async fn held(world: &MirrorWorld, lane: uuid::Uuid, job: &Job) -> Box<Lease> {
    match lane::claim(&world.db, lane, job, STALE).await.unwrap() {
        Claim::Held(lease) => lease,
        other => panic!("not held: {other:?}"),
    }
}

fn other(job: &Job) -> Job {
    Job { id: "01AN4Z07BY79KA1307SR9X4MV3".to_owned(), ..job.clone() }
}

/// A cursor that is set to a later instant passes by the events of the time until then.
#[tokio::test]
async fn a_claim_is_never_in_the_future() {
    let world = MirrorWorld::new().await;
    let (_, job, lane) = started(&world).await;
    eventually("a claim in the second half of a second", async || {
        let (lease, bracket) = Bracket::of(&world.db, held(&world, lane, &job)).await;
        let (before, after) = (bracket.before.timestamp(), bracket.after.timestamp());
        assert!(
            (before..=after).contains(&lease.claimed_at),
            "{} in {bracket:?}",
            lease.claimed_at
        );
        before == after && bracket.before.timestamp_subsec_millis() >= 500
    })
    .await;
}

#[tokio::test]
async fn a_lane_has_one_holder_and_its_own_job_comes_back_at_once() {
    let world = MirrorWorld::new().await;
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
    let world = MirrorWorld::new().await;
    let (upstream, job, lane) = started(&world).await;
    let old = held(&world, lane, &job).await;
    let _new = held(&world, lane, &job).await;

    let progress = Progress { unavailable: 7, backfill_until: Some(1), ..Progress::default() };
    assert!(!lane::checkpoint(&world.db, &old, &progress).await.unwrap());
    assert_eq!(lane::beat(&world.db, &old).await.unwrap(), lane::Beat::Lost);
    let ending = Ending::GoesOn(Duration::ZERO);
    let settled = lane::settle(&world.db, &job, &old, &progress, &ending, &json!(null)).await;
    assert_eq!(settled.unwrap(), Settled::LeaseLost);
    assert_eq!(world.lane(&upstream, LaneKind::Backfill).await.unavailable, 0);
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Running);
}

#[tokio::test]
async fn the_next_job_is_there_with_the_progress_or_not_at_all() {
    let world = MirrorWorld::new().await;
    let (upstream, job, lane) = started(&world).await;
    let lease = held(&world, lane, &job).await;
    let until = lease.lane.backfill_until.unwrap();
    let progress =
        Progress { backfill_until: Some(until - 100), unavailable: 3, ..Progress::default() };
    let ending = Ending::GoesOn(Duration::ZERO);
    let settled = lane::settle(&world.db, &job, &lease, &progress, &ending, &json!(1)).await;
    assert_eq!(settled.unwrap(), Settled::Written(()));

    let state = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!(
        (state.backfill_until, state.unavailable, state.status.as_str()),
        (Some(until - 100), 3, "syncing")
    );
    let next = world.fetch_of(MIRROR).await.expect("the next window's job");
    assert_eq!(state.lease_owner.as_deref(), Some(next.id.as_str()));
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Done);
    // Settled twice, as after a lost answer: nothing is counted twice.
    let again = lane::settle(&world.db, &job, &lease, &progress, &ending, &json!(1)).await;
    assert_eq!(again.unwrap(), Settled::LeaseLost);
    assert_eq!(world.lane(&upstream, LaneKind::Backfill).await.unavailable, 3);
}

#[tokio::test]
async fn progress_never_goes_the_wrong_way() {
    let world = MirrorWorld::new().await;
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
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://127.0.0.1:1", json!({})).await;
    world.trigger(&upstream, LaneKind::Realtime).await;
    for wait in [3, 18, 83, 258].map(Duration::from_secs) {
        let (ran, bracket) = Bracket::of(&world.db, world.step()).await;
        assert!(ran);
        let due = sqlx::query_scalar("select run_at from apalis.jobs where status = 'Failed'")
            .fetch_one(&world.db)
            .await
            .unwrap();
        bracket.assert_within(due, wait..=wait.mul_f64(1.15));
        assert_eq!(world.lane(&upstream, LaneKind::Realtime).await.status, "syncing");
        world.make_due().await;
    }
    let (ran, bracket) = Bracket::of(&world.db, world.step()).await;
    assert!(ran);
    let lane = world.lane(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), lane.consecutive_failures), ("error", 1));
    assert!(lane.error_message.unwrap().contains("failed to connect to ws://127.0.0.1:1"));
    bracket.assert(lane.retry_at.unwrap(), Duration::from_mins(30));

    let tick = orchestrate::dispatch(&world.db, LaneKind::Realtime, None, false).await;
    assert_eq!(tick.unwrap()[0].skipped, Some("resting after an error"));
    assert_eq!(world.trigger(&upstream, LaneKind::Realtime).await.skipped, None);
}

#[tokio::test]
async fn a_second_failure_rests_twice_as_long_and_a_clean_run_forgets_both() {
    let world = MirrorWorld::new().await;
    let fake = FakeRelay::start(|client, message| async move {
        if message[0] == "REQ" {
            client.send(json!(["CLOSED", message[1], "restricted: members only"])).await;
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({})).await;
    for minutes in [30, 60, 120] {
        let run = world.mirror(&upstream, LaneKind::Realtime);
        let (lane, bracket) = Bracket::of(&world.db, run).await;
        assert_eq!(lane.status, "error");
        assert!(lane.error_message.unwrap().contains("members only"));
        bracket.assert(lane.retry_at.unwrap(), Duration::from_mins(minutes));
    }
    let relay = RealRelay::start().await;
    let upstream = world.change_upstream(&upstream, json!({"url": relay.url})).await;
    let lane = world.mirror(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), lane.consecutive_failures), ("idle", 0));
}

#[tokio::test]
async fn recovery_frees_what_is_stuck_and_what_has_rested() {
    let world = MirrorWorld::new().await;
    let (stuck, job, lane) = started(&world).await;
    let old = held(&world, lane, &job).await;
    let nothing = recover_now(&world.db, None, None).await.unwrap();
    assert_eq!((nothing.stale.len(), nothing.errors.len()), (0, 0));
    world.silence_lanes(Duration::from_secs(601)).await;
    assert!(world.lane(&stuck, LaneKind::Backfill).await.is_stale);

    let freed = recover_now(&world.db, None, None).await.unwrap();
    assert_eq!((freed.stale.len(), freed.errors.len()), (1, 0));
    let state = world.lane(&stuck, LaneKind::Backfill).await;
    assert_eq!(state.status, "idle");
    assert!(!lane::checkpoint(&world.db, &old, &Progress::default()).await.unwrap());
    let forced = recover_now(&world.db, Some(Duration::ZERO), Some(Duration::ZERO));
    assert_eq!(forced.await.unwrap().stale.len(), 0);
}

#[tokio::test]
async fn a_deleted_relay_takes_its_lanes_along_and_fails_no_job() {
    let world = MirrorWorld::new().await;
    let (upstream, job, _) = started(&world).await;
    world.trigger(&upstream, LaneKind::Realtime).await;
    assert!(upstream::delete(&world.db, upstream.id, None).await.unwrap());
    world.drain().await;
    let (lanes,): (i64,) =
        sqlx::query_as("select count(*) from lane").fetch_one(&world.db).await.unwrap();
    assert_eq!(lanes, 0);
    let filter = queue::JobFilter { queue: Some(MIRROR.to_owned()), ..Default::default() };
    for summary in queue::jobs(&world.db, &filter, &Page::First, 100).await.unwrap() {
        let wanted = if summary.id == job.id { JobState::Running } else { JobState::Done };
        assert_eq!(summary.state, wanted);
    }
}
