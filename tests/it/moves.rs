//! Hosts that move between relays (`docs/adr/0016-names-that-move.md`).

use serde_json::{Value, json};
use tender::demo::zooid::Fault;
use tender_jobs::{
    provision::{
        Verdict,
        relay::{self, Change, FailureKind, Relay, SyncState},
    },
    queue::Job,
};
use tender_workers::provision::sync_relay::{self, Outcome};

use crate::support::{World, by, change};

async fn rehost(world: &World, relay: &Relay, subdomain: &str) {
    let change = Change { subdomain: Some(subdomain.to_owned()), ..change() };
    relay::update(&world.db, &relay.id, &change, &by()).await.unwrap();
}

fn host_on_zooid(world: &World, relay: &Relay) -> Value {
    world.zooid.documents()[relay.id.as_str()]["host"].clone()
}

/// Fetches every due job.
async fn fetch_all(world: &World) -> Vec<Job> {
    let mut jobs = Vec::new();
    while let Some(job) = world.try_fetch().await {
        jobs.push(job);
    }
    jobs
}

fn of<'a>(jobs: &'a [Job], relay: &Relay) -> &'a Job {
    let is_of = |job: &&Job| String::from_utf8_lossy(&job.payload).contains(relay.id.as_str());
    jobs.iter().find(is_of).expect("the relay has a due job")
}

async fn attempt(world: &World, jobs: &[Job], relay: &Relay) -> Outcome {
    sync_relay::attempt(&world.context, of(jobs, relay)).await
}

async fn assert_waits(world: &World, outcome: &Outcome, relay: &Relay, words: &str) {
    assert!(matches!(outcome, Outcome::Failed(Verdict::RetryAt(_))), "{outcome:?}");
    let relay = world.reload(relay).await;
    assert_eq!(relay.failure_kind, Some(FailureKind::Transient));
    assert!(relay.sync_error.contains(words), "{}", relay.sync_error);
}

#[tokio::test]
async fn a_freed_name_is_waited_for_and_taken_as_soon_as_it_is_free() {
    let world = World::new().await;
    let a = world.synced_relay("chat").await;
    let b = world.synced_relay("other").await;
    rehost(&world, &a, "talk").await;
    rehost(&world, &b, "chat").await;
    let jobs = fetch_all(&world).await;
    let outcome = attempt(&world, &jobs, &b).await;
    assert_waits(&world, &outcome, &b, "zooid still serves relay").await;
    assert!(world.try_fetch().await.is_none(), "nothing is due before the other has moved");
    assert_eq!(attempt(&world, &jobs, &a).await, Outcome::Synced);
    let jobs = fetch_all(&world).await;
    assert_eq!(
        attempt(&world, &jobs, &b).await,
        Outcome::Synced,
        "due at once, without its backoff"
    );
    assert_eq!(host_on_zooid(&world, &a), "talk.zooid.test");
    assert_eq!(host_on_zooid(&world, &b), "chat.zooid.test");
}

#[tokio::test]
async fn a_new_relay_waits_for_a_name_that_is_about_to_be_free() {
    let world = World::new().await;
    let a = world.synced_relay("chat").await;
    rehost(&world, &a, "talk").await;
    let b = world.relay("chat").await;
    let jobs = fetch_all(&world).await;
    let outcome = attempt(&world, &jobs, &b).await;
    assert_waits(&world, &outcome, &b, "zooid still serves relay").await;
    assert_eq!(attempt(&world, &jobs, &a).await, Outcome::Synced);
    let jobs = fetch_all(&world).await;
    assert_eq!(attempt(&world, &jobs, &b).await, Outcome::Synced);
    assert_eq!(host_on_zooid(&world, &b), "chat.zooid.test");
}

/// Lets every due job run, in the order of `first`, until nothing is due.
async fn settle(world: &World, first: &Relay) {
    for _ in 0..10 {
        let mut jobs = fetch_all(world).await;
        if jobs.is_empty() {
            return;
        }
        jobs.sort_by_key(|job| !String::from_utf8_lossy(&job.payload).contains(first.id.as_str()));
        for job in &jobs {
            sync_relay::attempt(&world.context, job).await;
        }
    }
    panic!("jobs are due again and again");
}

#[tokio::test]
async fn swapped_names_end_swapped() {
    for first in [0, 1] {
        let world = World::new().await;
        let relays = [world.synced_relay("chat").await, world.synced_relay("talk").await];
        rehost(&world, &relays[0], "passing").await;
        rehost(&world, &relays[1], "chat").await;
        rehost(&world, &relays[0], "talk").await;
        settle(&world, &relays[first]).await;
        assert_eq!(host_on_zooid(&world, &relays[0]), "talk.zooid.test");
        assert_eq!(host_on_zooid(&world, &relays[1]), "chat.zooid.test");
        assert!(world.reload(&relays[0]).await.synced && world.reload(&relays[1]).await.synced);
    }
}

#[tokio::test]
async fn a_circle_of_three_names_ends_turned() {
    let world = World::new().await;
    let mut relays = Vec::new();
    for name in ["one", "two", "three"] {
        relays.push(world.synced_relay(name).await);
    }
    rehost(&world, &relays[0], "passing").await;
    rehost(&world, &relays[2], "one").await;
    rehost(&world, &relays[1], "three").await;
    rehost(&world, &relays[0], "two").await;
    settle(&world, &relays[1]).await;
    for (relay, host) in relays.iter().zip(["two", "three", "one"]) {
        assert_eq!(host_on_zooid(&world, relay), format!("{host}.zooid.test"));
        assert!(world.reload(relay).await.synced);
    }
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_refused_for_good() {
    let world = World::new().await;
    let stranger = json!({ "host": "taken.zooid.test", "schema": "stranger" });
    world.zooid.put("stranger", stranger);
    let relay = world.relay("taken").await;
    assert_eq!(world.attempt().await, Outcome::Failed(Verdict::GaveUp));
    let relay = world.reload(&relay).await;
    assert_eq!(relay.failure_kind, Some(FailureKind::Permanent));
    assert!(relay.sync_error.contains("does not manage"), "{}", relay.sync_error);
}

#[tokio::test]
async fn a_name_is_released_even_if_the_process_that_freed_it_died() {
    let world = World::new().await;
    let a = world.synced_relay("chat").await;
    rehost(&world, &a, "talk").await;
    let b = world.relay("chat").await;
    let jobs = fetch_all(&world).await;
    attempt(&world, &jobs, &b).await;
    // The other moved, and its process died before it could release the waiting job.
    world.zooid.put(a.id.as_str(), {
        let mut document = world.zooid.documents()[a.id.as_str()].clone();
        document["host"] = json!("talk.zooid.test");
        document
    });
    sqlx::query("update relay set old_hosts = '{}' where id = $1")
        .bind(a.id.as_str())
        .execute(&world.db)
        .await
        .unwrap();
    tender_jobs::provision::release_waiting(&world.db).await.unwrap();
    let jobs = fetch_all(&world).await;
    assert_eq!(attempt(&world, &jobs, &b).await, Outcome::Synced);
}

#[tokio::test]
async fn a_relay_that_gave_up_waiting_for_a_name_goes_again_when_it_is_free() {
    let world = World::new().await;
    let a = world.synced_relay("chat").await;
    rehost(&world, &a, "talk").await;
    let b = world.relay("chat").await;
    world.zooid.plan(Some(a.id.as_str()), Fault::Status(500, None), None);
    for _ in 0..7 {
        world.make_due().await;
        let jobs = fetch_all(&world).await;
        attempt(&world, &jobs, &b).await;
        world.make_due().await;
    }
    assert_eq!(world.reload(&b).await.sync_state(), SyncState::GaveUp);
    world.zooid.heal();
    world.expire_leases().await;
    world.rescue().await;
    world.beat().await;
    relay::request_sync(&world.db, &a.id, &by()).await.unwrap();
    let jobs = fetch_all(&world).await;
    assert_eq!(attempt(&world, &jobs, &a).await, Outcome::Synced);
    world.make_due().await;
    let jobs = fetch_all(&world).await;
    assert_eq!(attempt(&world, &jobs, &b).await, Outcome::Synced);
    assert_eq!(host_on_zooid(&world, &b), "chat.zooid.test");
}

#[tokio::test]
async fn a_relay_keeps_its_name_while_its_partner_cannot_move() {
    let world = World::new().await;
    let relays = [world.synced_relay("chat").await, world.synced_relay("talk").await];
    rehost(&world, &relays[0], "passing").await;
    rehost(&world, &relays[1], "chat").await;
    rehost(&world, &relays[0], "talk").await;
    world.zooid.plan(Some(relays[1].id.as_str()), Fault::Status(422, None), None);
    let jobs = fetch_all(&world).await;
    assert_eq!(attempt(&world, &jobs, &relays[1]).await, Outcome::Failed(Verdict::GaveUp));
    let outcome = attempt(&world, &jobs, &relays[0]).await;
    assert_waits(&world, &outcome, &relays[0], "zooid still serves relay").await;
    assert_eq!(host_on_zooid(&world, &relays[0]), "chat.zooid.test", "at its old name");
}

#[tokio::test]
async fn names_turn_although_a_third_relay_may_have_one_of_them() {
    let world = World::new().await;
    let stale = world.synced_relay("elsewhere").await;
    let relays = [world.synced_relay("chat").await, world.synced_relay("talk").await];
    // A cancelled rename whose last call may have been applied.
    sqlx::query("update relay set old_hosts = '{chat.zooid.test,talk.zooid.test}', lease_epoch = 99 where id = $1")
        .bind(stale.id.as_str())
        .execute(&world.db)
        .await
        .unwrap();
    rehost(&world, &relays[0], "passing").await;
    rehost(&world, &relays[1], "chat").await;
    rehost(&world, &relays[0], "talk").await;
    settle(&world, &relays[0]).await;
    // The third may still have the name, so the retry follows the schedule.
    world.make_due().await;
    settle(&world, &relays[0]).await;
    assert_eq!(host_on_zooid(&world, &relays[0]), "talk.zooid.test");
    assert_eq!(host_on_zooid(&world, &relays[1]), "chat.zooid.test");
}

#[tokio::test]
async fn a_restored_backup_of_zooid_is_mended_also_where_names_moved_in_a_circle() {
    let world = World::new().await;
    let mut relays = Vec::new();
    for name in ["one", "two", "three"] {
        relays.push(world.synced_relay(name).await);
    }
    let backup = world.zooid.documents();
    rehost(&world, &relays[0], "passing").await;
    rehost(&world, &relays[2], "one").await;
    rehost(&world, &relays[1], "three").await;
    rehost(&world, &relays[0], "two").await;
    settle(&world, &relays[1]).await;
    for (id, document) in backup {
        world.zooid.put(&id, document);
    }
    for relay in &relays {
        relay::request_sync(&world.db, &relay.id, &by()).await.unwrap();
    }
    for _ in 0..6 {
        world.make_due().await;
        for job in fetch_all(&world).await {
            sync_relay::attempt(&world.context, &job).await;
        }
    }
    for (relay, host) in relays.iter().zip(["two", "three", "one"]) {
        assert_eq!(host_on_zooid(&world, relay), format!("{host}.zooid.test"));
        assert!(world.reload(relay).await.synced, "{:?}", world.reload(relay).await.sync_error);
    }
}
