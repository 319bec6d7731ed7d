//! What a lane costs when nothing is new: the statements of its schedule and of its job. Each upstream multiplies
//! them, so a further statement per job must have a reason.

use serde_json::{Value, json};
use tender_jobs::mirror::{MIRROR, UPLOADS, lane::LaneKind, upstream::Upstream};
use tender_workers::mirror::orchestrate;

use crate::support::{
    mirror::{MirrorWorld, days},
    relays::{FakeRelay, note},
    statements::recorded,
};

/// The statements of a poll. The beginning of a transaction is not recorded.
const REALTIME: [&str; 6] = [
    "set status = 'Running'",                          // the job starts
    "left join mirror_setting",                        // the settings and the upstream
    "update lane set status = 'syncing', lease_owner", // the claim
    "update lane set unavailable",                     // the progress; the lane rests
    "update apalis.jobs",                              // the job ends
    "COMMIT",
];

/// A relay that has no event and supports NIP-77.
async fn empty_relay() -> FakeRelay {
    FakeRelay::start(|client, message: Value| async move {
        match message[0].as_str() {
            Some("REQ") => client.send(json!(["EOSE", message[1]])).await,
            Some("NEG-OPEN") => client.send(json!(["NEG-MSG", message[1], "61"])).await,
            Some("EVENT") => client.send(json!(["OK", message[1]["id"], true, ""])).await,
            _ => {}
        }
    })
    .await
}

/// An upstream whose lanes have run once, and have nothing to do.
async fn in_step(world: &MirrorWorld, relay: &FakeRelay) -> Upstream {
    let fields = json!({ "direction": "both", "negentropy": true, "config": days(1) });
    let upstream = world.upstream(&relay.url, fields).await;
    for kind in [LaneKind::Backfill, LaneKind::Realtime, LaneKind::Upload] {
        assert_eq!(world.mirror(&upstream, kind).await.error_message, None);
    }
    upstream
}

/// The statements of the next job of a queue.
async fn statements_of(world: &MirrorWorld, queue: &str) -> Vec<String> {
    world.make_due().await;
    let job = world.fetch_of(queue).await.expect("a job is due");
    let (statements, _recording) = recorded();
    tender_workers::mirror::run(world.context.clone(), job).await;
    statements.all()
}

#[tokio::test]
async fn a_poll_that_finds_nothing_new_makes_six_statements() {
    let (world, relay) = (MirrorWorld::new().await, empty_relay().await);
    let upstream = in_step(&world, &relay).await;
    let before = world.lane(&upstream, LaneKind::Realtime).await;
    orchestrate::dispatch(&world.db, LaneKind::Realtime, None, false).await.unwrap();
    let statements = statements_of(&world, MIRROR).await;
    assert_eq!(statements.len(), REALTIME.len(), "{statements:#?}");
    for (statement, part) in statements.iter().zip(REALTIME) {
        assert!(statement.contains(part), "{statement}: {part}");
    }
    let after = world.lane(&upstream, LaneKind::Realtime).await;
    assert_eq!((after.status.as_str(), after.error_message), ("idle", None));
    assert!(after.cursor_at >= before.cursor_at && after.last_synced_at > before.last_synced_at);
}

#[tokio::test]
async fn an_upload_without_new_events_makes_eleven_statements_and_locks_the_store_once() {
    let (world, relay) = (MirrorWorld::new().await, empty_relay().await);
    in_step(&world, &relay).await;
    orchestrate::dispatch(&world.db, LaneKind::Upload, None, false).await.unwrap();
    let statements = statements_of(&world, UPLOADS).await;
    assert!(statements.len() <= 11, "{statements:#?}");
    let locks = statements.iter().filter(|one| one.contains("pg_advisory_xact_lock")).count();
    assert_eq!(locks, 1, "{statements:#?}");
}

/// The look without the lock must not pass by an event.
#[tokio::test]
async fn an_event_that_is_stored_after_an_empty_run_is_uploaded_by_the_next() {
    let (world, relay) = (MirrorWorld::new().await, empty_relay().await);
    let upstream = in_step(&world, &relay).await;
    world.put(&[note(&nostr::key::Keys::generate(), world.db_now().await - 60, "new")]).await;
    let dispatched = orchestrate::dispatch(&world.db, LaneKind::Upload, Some(upstream.id), false);
    dispatched.await.unwrap();
    world.make_due().await;
    assert!(world.step().await);
    assert_eq!(relay.verbs("EVENT").len(), 1);
}

#[tokio::test]
async fn a_schedule_costs_the_same_for_one_upstream_and_for_many() {
    let world = MirrorWorld::new().await;
    let mut counts = Vec::new();
    for upstreams in [1..2, 2..60] {
        for number in upstreams {
            world.upstream(&format!("ws://127.0.0.1:{number}"), json!({})).await;
        }
        for mode in [LaneKind::Realtime, LaneKind::Backfill] {
            orchestrate::dispatch(&world.db, mode, None, false).await.unwrap(); // makes the lanes
            finish(&world).await;
            let (statements, _recording) = recorded();
            let dispatched = orchestrate::dispatch(&world.db, mode, None, false).await.unwrap();
            let skipped = (mode == LaneKind::Backfill).then_some("complete");
            assert!(dispatched.iter().all(|one| one.skipped == skipped), "{dispatched:?}");
            counts.push(statements.all().len());
        }
    }
    assert_eq!(counts[..2], counts[2..], "realtime and backfill: one upstream, and 59");
    assert!(counts.iter().all(|count| *count <= 6), "{counts:?}");
}

/// Ends every job, and completes every history.
async fn finish(world: &MirrorWorld) {
    for statement in [
        "delete from apalis.jobs",
        "update lane set status = 'completed', backfill_until = backfill_target where lane = 'backfill'",
    ] {
        sqlx::query(statement).execute(&world.db).await.unwrap();
    }
}
