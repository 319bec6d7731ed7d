//! One attempt against a zooid that does its part.

use serde_json::json;
use tender::demo::zooid::{Fault, Gate};
use tender_jobs::{
    provision::relay::{Change, SyncState},
    queue::JobState,
};
use tender_workers::provision::sync_relay::{self, Outcome};
use tokio::task::JoinHandle;

use crate::support::{World, change, patiently, settings};

/// An attempt of the due job, whose call is held at the gate.
async fn held_attempt(world: &World, gate: &Gate) -> JoinHandle<Outcome> {
    world.zooid.plan(None, Fault::Hold(gate.clone()), Some(1));
    let (context, job) = (world.context.clone(), world.fetch().await);
    let attempt = tokio::spawn(async move { sync_relay::attempt(&context, &job).await });
    patiently("the call is on its way", gate.reached(1)).await;
    attempt
}

#[tokio::test]
async fn a_new_relay_is_posted_and_everything_about_it_is_settled() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    assert_eq!((relay.synced, relay.generation, relay.synced_generation), (false, 1, 0));

    assert_eq!(world.attempt().await, Outcome::Synced);

    let relay = world.reload(&relay).await;
    assert_eq!((relay.sync_state(), relay.synced_generation), (SyncState::Synced, 1));
    assert!(relay.provisioned_at.is_some() && relay.sync_error.is_empty());
    let job = world.job().await;
    assert_eq!((job.summary.state, job.summary.attempts), (JobState::Done, 1));
    assert_eq!((job.key, job.summary.lock_by), (None, None));
    assert_eq!(world.history(&relay).await, ["create_relay", "complete_relay_sync"]);
    let detail = &world.records(&relay).await[1].detail;
    assert_eq!((&detail["attempt"], &detail["method"]), (&json!(1), &json!("POST")));
    assert_eq!((&detail["generation"], &detail["job"]), (&json!(1), &json!(job.summary.id)));
    assert!(detail["duration_ms"].is_u64());
    let calls = world.zooid.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].method.as_str(), calls[0].status), ("POST", Some(201)));
}

#[tokio::test]
async fn a_change_is_patched_and_keeps_the_relays_secret() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let secret = world.zooid.documents()[relay.id.as_str()]["secret"].clone();

    world.rename(&relay, "Renamed").await;
    assert_eq!(world.attempt().await, Outcome::Synced);

    let document = &world.zooid.documents()[relay.id.as_str()];
    assert_eq!(document["info"]["name"], "Renamed");
    assert_eq!(document["secret"], secret);
    assert_eq!(world.zooid.calls()[1].method, "PATCH");
    assert_eq!(world.records(&relay).await[3].detail["method"], "PATCH");
}

#[tokio::test]
async fn a_relay_in_step_is_not_called_for() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    // A second job, as a hand or a rescue may leave one.
    sqlx::query("update apalis.jobs set status = 'Pending', done_at = null")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(world.attempt().await, Outcome::Nothing);
    assert_eq!(world.zooid.calls().len(), 1);
    assert_eq!(world.history(&relay).await, ["create_relay", "complete_relay_sync"]);
    assert_eq!(world.job().await.summary.state, JobState::Done);
}

#[tokio::test]
async fn a_job_without_a_relay_is_done() {
    let world = World::new().await;
    world.relay("alpha").await;
    sqlx::query("delete from relay").execute(&world.db).await.unwrap();
    assert_eq!(world.attempt().await, Outcome::Nothing);
    assert_eq!(world.job().await.summary.state, JobState::Done);
    assert!(world.zooid.calls().is_empty());
}

#[tokio::test]
async fn a_relay_deleted_while_its_job_runs_ends_the_job() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let gate = Gate::default();
    let running = held_attempt(&world, &gate).await;
    sqlx::query("delete from relay where id = $1")
        .bind(relay.id.as_str())
        .execute(&world.db)
        .await
        .unwrap();
    gate.open();
    assert_eq!(running.await.unwrap(), Outcome::Synced);
    assert_eq!(world.job().await.summary.state, JobState::Done);
}

#[tokio::test]
async fn a_lost_answer_is_found_out_and_the_relay_is_created_once() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    world.zooid.plan(None, Fault::DropAfter, Some(1));
    assert!(matches!(world.attempt().await, Outcome::Failed(_)));
    let secret = world.zooid.documents()[relay.id.as_str()]["secret"].clone();
    world.rename(&relay, "Newer").await;

    assert_eq!(world.attempt().await, Outcome::Synced);

    let calls = world.zooid.calls();
    let seen: Vec<_> = calls.iter().map(|call| (call.method.as_str(), call.status)).collect();
    assert_eq!(seen, [("POST", None), ("POST", Some(409)), ("PATCH", Some(200))]);
    assert_eq!(calls.iter().filter(|call| call.created).count(), 1);
    let document = &world.zooid.documents()[relay.id.as_str()];
    assert_eq!((&document["info"]["name"], &document["secret"]), (&json!("Newer"), &secret));
    let note = &world.records(&relay).await.pop().unwrap().detail["note"];
    assert_eq!(note, "existed already: an earlier answer was lost");
}

#[tokio::test]
async fn a_relay_that_zooid_lost_is_created_again_under_its_identity_with_a_note() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let old_secret = world.zooid.documents()[relay.id.as_str()]["secret"].clone();
    world.zooid.lose(relay.id.as_str());
    world.rename(&relay, "Again").await;

    assert_eq!(world.attempt().await, Outcome::Synced);

    let document = &world.zooid.documents()[relay.id.as_str()];
    assert_eq!(document["info"]["name"], "Again");
    assert_eq!(document["secret"], old_secret);
    let detail = world.records(&relay).await.pop().unwrap().detail;
    assert_eq!(detail["method"], "POST");
    let note = detail["note"].as_str().unwrap();
    assert!(
        note.starts_with("zooid had lost the relay; created anew") && note.ends_with("as before")
    );
}

#[tokio::test]
async fn a_lost_relay_is_not_created_anew_when_the_operator_says_so() {
    let mut settings = settings();
    settings.recreate_missing = false;
    let world = World::with(settings, |_| {}).await;
    let relay = world.synced_relay("alpha").await;
    world.zooid.lose(relay.id.as_str());
    world.rename(&relay, "Again").await;
    assert!(matches!(world.attempt().await, Outcome::Failed(_)));
    assert!(world.zooid.is_empty());
    assert_eq!(world.reload(&relay).await.sync_error, "zooid answered: relay not found");
}

#[tokio::test]
async fn a_mutation_during_an_attempt_gets_its_own_job_and_wins() {
    let world = World::new().await;
    let relay =
        world.relay_with("alpha", Change { info_name: Some("first".into()), ..change() }).await;
    let gate = Gate::default();
    let attempt = held_attempt(&world, &gate).await;
    world.rename(&relay, "second").await;
    assert_eq!(world.jobs().await.len(), 2, "the claim has freed the key");
    gate.open();
    assert_eq!(attempt.await.unwrap(), Outcome::Synced);

    let between = world.reload(&relay).await;
    assert_eq!((between.synced, between.synced_generation, between.generation), (false, 1, 2));
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.reload(&relay).await.synced);
    assert_eq!(world.zooid.documents()[relay.id.as_str()]["info"]["name"], "second");
    assert!(world.zooid.overlaps().is_empty());
}

#[tokio::test]
async fn a_relay_whose_row_cannot_be_read_stops_nobody() {
    let world = World::new().await;
    let (odd, sound) = (world.relay("odd").await, world.relay("sound").await);
    sqlx::query("update relay set created_at = 'infinity' where subdomain = 'odd'")
        .execute(&world.db)
        .await
        .unwrap();
    let queue = tender_jobs::provision::SYNC_RELAY;
    let jobs = tender_jobs::queue::fetch(&world.db, &world.worker, queue, 2).await.unwrap();
    assert_eq!(jobs.len(), 2);
    let attempts = jobs.iter().map(|job| sync_relay::attempt(&world.context, job));
    futures_util::future::join_all(attempts).await;
    sqlx::query(
        "update relay set lease_until = now() - interval '1 s' where lease_until is not null",
    )
    .execute(&world.db)
    .await
    .unwrap();
    sqlx::query("delete from apalis.jobs where idempotency_key = 'relay:' || $1")
        .bind(odd.id.as_str())
        .execute(&world.db)
        .await
        .unwrap();
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.reload(&sound).await.synced);
}
