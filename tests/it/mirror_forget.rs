//! What is believed of an upstream ends with its address, and with a reset.

use std::sync::{Arc, Mutex};

use nostr::key::Keys;
use serde_json::json;
use tender_jobs::{
    mirror::{
        MIRROR, event,
        lane::LaneKind,
        upstream::{self, Upstream},
    },
    queue::{self, JobState, Page},
};
use tender_workers::mirror::recover_now;
use uuid::Uuid;

use crate::support::{
    mirror::{MirrorWorld, days},
    relays::{FakeRelay, as_json, notes, serve_req},
};

/// An upstream with a lane and a belief of each kind.
async fn believed(world: &MirrorWorld) -> Upstream {
    let fields = json!({"direction": "both", "negentropy": true});
    let upstream = world.upstream("ws://a.test", fields).await;
    world.trigger(&upstream, LaneKind::Realtime).await;
    world.trigger(&upstream, LaneKind::Upload).await;
    for statement in [
        "insert into event_source (event_id, upstream_id) select sha256('a'), id from upstream",
        "insert into upload_verdict (upstream_id, event_id, verdict) select id, sha256('b'), 'rejected' from upstream",
        "insert into known_id (event_id, upstream_id, created_at, reason) select sha256('c'), id, 1, 'wrong-id' from upstream",
        "insert into known_id (event_id, created_at, reason) values (sha256('d'), 1, 'expired')",
        "insert into lane_gap (lane_id, kind, since, until, reason, retry_at) select id, 'span', 1, 2, 'test', now() from lane",
        "update upstream set negentropy_verdict = 'unsupported', negentropy_verdict_until = now() + interval '1 day',
                negentropy_reason = 'no', information = '{}', information_at = now()",
    ] {
        sqlx::query(statement).execute(&world.db).await.unwrap();
    }
    upstream
}

/// Rows about the upstream, and rows of known ids that concern every upstream.
async fn beliefs(world: &MirrorWorld) -> (i64, i64) {
    sqlx::query_as(
        "select (select count(*) from event_source) + (select count(*) from upload_verdict)
              + (select count(*) from known_id where upstream_id is not null)
              + (select count(*) from lane) + (select count(*) from lane_gap),
                (select count(*) from known_id where upstream_id is null)",
    )
    .fetch_one(&world.db)
    .await
    .unwrap()
}

fn is_unknown(upstream: &Upstream) -> bool {
    upstream.negentropy_verdict == "unknown"
        && upstream.negentropy_verdict_until.is_none()
        && upstream.negentropy_reason.is_none()
        && upstream.information.is_none()
        && upstream.information_at.is_none()
}

#[tokio::test]
async fn another_address_is_another_relay_and_its_notes_are_not() {
    let world = MirrorWorld::new().await;
    let upstream = believed(&world).await;
    let same = world.change_upstream(&upstream, json!({"url": "ws://a.test/", "notes": "x"})).await;
    assert!(!is_unknown(&same));
    assert_eq!(beliefs(&world).await, (7, 1));
    let moved = world.change_upstream(&upstream, json!({"url": "ws://b.test"})).await;
    assert!(is_unknown(&moved), "{moved:?}");
    assert_eq!(beliefs(&world).await, (0, 1));
}

#[tokio::test]
async fn a_reset_forgets_everything_but_the_events() {
    let world = MirrorWorld::new().await;
    let upstream = believed(&world).await;
    assert_eq!(upstream::reset(&world.db, Some(upstream.id), None).await.unwrap(), 2);
    assert_eq!(beliefs(&world).await, (0, 1));
    let after = upstream::find(&world.db, upstream.id).await.unwrap().unwrap();
    assert!(is_unknown(&after), "{after:?}");
    // The jobs of the deleted lanes find nothing to do.
    world.drain().await;
    assert_eq!(upstream::reset(&world.db, None, None).await.unwrap(), 0);
}

/// What happens at an upstream's first request.
#[derive(Clone, Copy)]
enum Act {
    Reset,
    Recover,
    Wipe,
}

/// Runs a backfill during whose first request somebody acts.
async fn disturbed(world: &MirrorWorld, act: Act) -> (Upstream, usize) {
    let events = as_json(&notes(&Keys::generate(), 10, world.db_now().await - 60, 600));
    let (db, target): (_, Arc<Mutex<Option<Uuid>>>) = (world.db.clone(), Arc::default());
    let chosen = target.clone();
    let fake = FakeRelay::start(move |client, message| {
        let (events, db) = (events.clone(), db.clone());
        let target = target.lock().unwrap().take();
        async move {
            if message[0] == "REQ" {
                match (act, target) {
                    (_, None) => {}
                    (Act::Reset, Some(id)) => {
                        let _lanes = upstream::reset(&db, Some(id), None).await.unwrap();
                    }
                    (Act::Wipe, Some(_)) => event::wipe(&db).await.unwrap(),
                    (Act::Recover, Some(_)) => {
                        let now = Some(std::time::Duration::ZERO);
                        assert_eq!(recover_now(&db, now, None).await.unwrap().stale.len(), 1);
                    }
                }
                serve_req(&client, &message, &events, 500).await;
            }
        }
    })
    .await;
    let upstream = world.upstream(&fake.url, json!({"config": days(1)})).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    *chosen.lock().unwrap() = Some(upstream.id);
    world.drain().await;
    let filter = queue::JobFilter { queue: Some(MIRROR.to_owned()), ..Default::default() };
    let jobs = queue::jobs(&world.db, &filter, &Page::First, 100).await.unwrap();
    assert!(jobs.iter().all(|job| job.state == JobState::Done), "{jobs:?}");
    (upstream, fake.verbs("REQ").len())
}

#[tokio::test]
async fn a_job_whose_lane_is_deleted_ends_at_once_and_stores_nothing() {
    for act in [Act::Reset, Act::Wipe] {
        let world = MirrorWorld::new().await;
        let (upstream, _) = disturbed(&world, act).await;
        assert_eq!(world.stored().await.len(), 0);
        assert_eq!(world.mirror(&upstream, LaneKind::Backfill).await.stored, 10);
    }
}

#[tokio::test]
async fn a_job_whose_lane_was_freed_continues_itself() {
    let world = MirrorWorld::new().await;
    let (upstream, requests) = disturbed(&world, Act::Recover).await;
    assert!(requests > 1);
    let lane = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.stored), ("completed", 10));
}
