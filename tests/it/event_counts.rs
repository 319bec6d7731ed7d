//! The counters of a lane: each is written with what it counts, under the lease.

use std::collections::BTreeSet;

use serde_json::json;
use tender_jobs::{
    mirror::{
        event::{
            self, Batch, Event, EventId, Tally,
            outgoing::{self, Reached, UploadTally, Verdict},
        },
        lane::{self, LaneKind, Lease},
        upstream::{Upstream, settings::Settings},
    },
    queue::Settled,
};

use crate::{
    event_store::{event, live},
    support::mirror::MirrorWorld,
};

/// A lease of the lane, and one of an earlier holder.
async fn leases(world: &MirrorWorld, upstream: &Upstream, kind: LaneKind) -> (Lease, Lease) {
    let lane = lane::ensure(&world.db, upstream, kind, &Settings::default()).await.unwrap();
    let held = "update lane set status = 'syncing', lease_owner = 'job', lease_epoch = 2,
                                heartbeat_at = now() where id = $1";
    sqlx::query(held).bind(lane.id).execute(&world.db).await.unwrap();
    let lease = |epoch| Lease { lane: lane.clone(), epoch, claimed_at: 0, deaths: 0 };
    (lease(2), lease(1))
}

fn batch_of<'a>(upstream: &Upstream, lease: &'a Lease, events: &'a [Event]) -> Batch<'a> {
    Batch { lane: Some(lease), ..Batch::new(upstream.id, events) }
}

async fn sums(world: &MirrorWorld) -> (i64, i64, i64) {
    let sums = "select coalesce(sum(stored), 0)::bigint, coalesce(sum(duplicate), 0)::bigint,
                       coalesce(sum(rejected), 0)::bigint from ingest_minute";
    sqlx::query_as(sums).fetch_one(&world.db).await.unwrap()
}

#[tokio::test]
async fn events_and_their_counts_are_stored_together_under_the_lease() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await;
    let (lease, stale) = leases(&world, &upstream, LaneKind::Backfill).await;
    let note = event(1, 1, 1, 0, &[]);
    let events = [note.clone(), note, event(2, 1, 22_000, 0, &[]), event(3, 1, 5, 0, &[])];

    let lost = event::store(&world.db, batch_of(&upstream, &stale, &events)).await.unwrap();
    assert_eq!(lost, Settled::LeaseLost);
    assert_eq!((live(&world).await, sums(&world).await), (BTreeSet::new(), (0, 0, 0)));

    let batches = (0..3).map(|_| event::store(&world.db, batch_of(&upstream, &lease, &events)));
    for stored in futures_util::future::join_all(batches).await {
        assert_ne!(stored.unwrap(), Settled::LeaseLost);
    }
    let lane = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.received, lane.stored, lane.duplicate, lane.rejected), (12, 2, 7, 3));
    assert_eq!(sums(&world).await, (2, 7, 3));

    let before = Tally { duplicate: 5, ..Tally::default() };
    let known = Batch { before, ..batch_of(&upstream, &lease, &[]) };
    event::store(&world.db, known).await.unwrap();
    let lane = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.received, lane.duplicate, sums(&world).await), (17, 12, (2, 12, 3)));
}

#[tokio::test]
async fn verdicts_and_their_counts_are_stored_together() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({"direction": "up"})).await;
    let (lease, stale) = leases(&world, &upstream, LaneKind::Upload).await;
    let id = |number| EventId([number; 32]);
    let verdicts = [
        (id(1), Verdict::Accepted),
        (id(2), Verdict::Duplicate),
        (id(3), Verdict::Rejected("invalid: no".to_owned())),
        (id(4), Verdict::Pending("error: disk".to_owned())),
    ];
    let judge = async |lease: &Lease| {
        let reached = Reached { position: Some(7), sending: Some(9), is_answered: true };
        outgoing::judge(&world.db, lease, &verdicts, reached).await.unwrap()
    };
    assert_eq!(judge(&stale).await, Settled::LeaseLost);
    let count = "select count(*) from upload_verdict";
    let (rows,): (i64,) = sqlx::query_as(count).fetch_one(&world.db).await.unwrap();
    assert_eq!(rows, 0);
    let all = UploadTally { accepted: 1, duplicate: 1, rejected: 1, pending: 1, kept: 0 };
    assert_eq!(judge(&lease).await, Settled::Written(all));
    // A rejection that is known is not counted again.
    assert_eq!(judge(&lease).await, Settled::Written(UploadTally { rejected: 0, ..all }));
    let lane = world.lane(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.upload_duplicate, lane.upload_rejected), (2, 2, 1));
    assert_eq!(lane.upload_position, 7);
}
