//! The background re-assertion: what was changed on zooid behind our back is mended.

use std::time::Duration;

use serde_json::json;
use tender_jobs::provision::{self, Reasserted};
use tender_workers::provision::sync_relay::Outcome;

use crate::support::World;

const WEEK: Duration = Duration::from_hours(7 * 24);

/// Moves the start of the round back.
async fn pass(world: &World, time: &str) {
    sqlx::query("update reassertion set round_started_at = round_started_at - $1::text::interval")
        .bind(time)
        .execute(&world.db)
        .await
        .unwrap();
}

async fn reassert(world: &World) -> Reasserted {
    provision::reassert(&world.db, WEEK).await.unwrap()
}

#[tokio::test]
async fn a_document_that_was_changed_behind_our_back_is_mended_within_a_round() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let mut document = world.zooid.documents()[relay.id.as_str()].clone();
    document["info"]["name"] = json!("renamed by its owner");
    world.zooid.put(relay.id.as_str(), document);
    assert_eq!(reassert(&world).await.relays, 0, "the round has just begun");
    pass(&world, "7 days").await;
    assert_eq!(reassert(&world).await, Reasserted { relays: 1, ended_round: true });
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(
        world.zooid.documents()[relay.id.as_str()]["info"]["name"],
        relay.info_name.as_str()
    );
    let found = world.reload(&relay).await;
    assert!(found.synced && found.confirm_at.is_none());
    assert_eq!(world.history(&relay).await, ["create_relay", "complete_relay_sync"], "no record");
}

#[tokio::test]
async fn a_relay_that_zooid_lost_is_created_again_with_its_identity() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let before = world.zooid.documents()[relay.id.as_str()].clone();
    world.zooid.lose(relay.id.as_str());
    reassert(&world).await;
    pass(&world, "7 days").await;
    reassert(&world).await;
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(world.zooid.documents()[relay.id.as_str()], before);
    let detail = world.records(&relay).await.pop().unwrap().detail;
    let note = detail["note"].as_str().unwrap();
    assert!(note.starts_with("zooid had lost the relay") && note.ends_with("as before"), "{note}");
}

#[tokio::test]
async fn relays_are_spread_evenly_over_the_round() {
    let world = World::new().await;
    for number in 0..14 {
        world.synced_relay(&format!("r{number}")).await;
    }
    reassert(&world).await;
    let mut seen = 0;
    for day in 1..=7 {
        pass(&world, "1 day").await;
        let step = reassert(&world).await;
        assert_eq!((step.relays, reassert(&world).await.relays), (2, 0), "day {day}");
        seen += step.relays;
    }
    assert_eq!(seen, 14);
    let marked: i64 = sqlx::query_scalar("select count(*) from relay where confirm_at is not null")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(marked, 14, "each of them once");
}

#[tokio::test]
async fn nothing_is_sent_while_zooid_is_out_and_the_backlog_is_bounded() {
    let world = World::new().await;
    world.synced_relay("alpha").await;
    reassert(&world).await;
    pass(&world, "8 days").await;
    sqlx::query(
        "update zooid_instance set opened_at = now(), retry_at = now() + interval '1 hour'",
    )
    .execute(&world.db)
    .await
    .unwrap();
    assert_eq!(reassert(&world).await.relays, 1);
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Held);
    sqlx::query(
        "insert into apalis.jobs (id, job_type, job, status, priority)
         select 'waiting-' || n, 'sync-relay', '{}', 'Pending', -5 from generate_series(1, 1000) n",
    )
    .execute(&world.db)
    .await
    .unwrap();
    pass(&world, "8 days").await;
    assert_eq!(reassert(&world).await.relays, 0, "enough wait");
}

#[tokio::test]
async fn a_change_goes_before_reassertions() {
    let world = World::new().await;
    let old = world.synced_relay("alpha").await;
    reassert(&world).await;
    pass(&world, "8 days").await;
    reassert(&world).await;
    let new = world.relay("beta").await;
    world.make_due().await;
    let first = world.fetch().await;
    assert!(String::from_utf8_lossy(&first.payload).contains(new.id.as_str()));
    let second = world.fetch().await;
    assert!(String::from_utf8_lossy(&second.payload).contains(old.id.as_str()));
    assert_eq!(world.job_by_id(&second.id).await.summary.priority, -5);
}
