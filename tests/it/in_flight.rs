//! The limit of calls in flight, and claims beside a locked relay.

use std::time::Duration;

use tender_jobs::{
    provision::{
        self, Attempt, Claim, ClaimRequest, Completed, Completion, Failure, Reached, SyncPayload,
        instance,
        relay::{FailureKind, Relay, RelayId},
    },
    queue::{self, Job},
};
use tender_workers::provision::{
    Settings,
    sync_relay::{self, Outcome},
};

use crate::support::{World, settings};

fn request(job: Job) -> ClaimRequest {
    ClaimRequest { relay_id: SyncPayload::parse(&job.payload).unwrap().relay_id, job }
}

#[tokio::test]
async fn calls_in_flight_stay_within_the_limit_whoever_claims() {
    let world = World::with(Settings { max_in_flight: 7, ..settings() }, |_| {}).await;
    for number in 0..40 {
        world.relay(&format!("relay-{number}")).await;
    }
    let mut claims = Vec::new();
    for _ in 0..40 {
        let job = world.fetch().await;
        let (db, instances) = (world.db.clone(), world.context.instances.clone());
        claims.push(tokio::spawn(async move {
            provision::claim(&db, &[request(job)], &instances).await.unwrap().remove(0)
        }));
    }
    let (mut ready, mut later) = (0, 0);
    for claim in claims {
        match claim.await.unwrap() {
            Claim::Ready(_) => ready += 1,
            Claim::Later => later += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((ready, later), (7, 33));
    let listed = instance::list(&world.db).await.unwrap();
    assert_eq!(listed.iter().map(|instance| instance.in_flight).collect::<Vec<_>>(), [7]);
}

#[tokio::test]
async fn one_batch_takes_no_more_than_the_limit() {
    let world = World::with(Settings { max_in_flight: 3, ..settings() }, |_| {}).await;
    let mut requests = Vec::new();
    for number in 0..8 {
        world.relay(&format!("relay-{number}")).await;
        requests.push(request(world.fetch().await));
    }
    let claims = provision::claim(&world.db, &requests, &world.context.instances).await;
    let ready = claims.unwrap().iter().filter(|claim| matches!(claim, Claim::Ready(_))).count();
    assert_eq!(ready, 3);
}

#[tokio::test]
async fn a_locked_relay_holds_up_nobody_else() {
    let world = World::new().await;
    let (locked, free) = (world.relay("locked").await, world.relay("free").await);
    let mut transaction = tender_jobs::database::begin(&world.db).await.unwrap();
    sqlx::query("select from relay where id = $1 for update")
        .bind(locked.id.as_str())
        .execute(&mut *transaction)
        .await
        .unwrap();
    let jobs = queue::fetch(&world.db, &world.worker, provision::SYNC_RELAY, 2).await.unwrap();
    assert_eq!(jobs.len(), 2);
    let attempts = jobs.iter().map(|job| sync_relay::attempt(&world.context, job));
    let outcomes = futures_util::future::join_all(attempts).await;
    assert!(outcomes.contains(&Outcome::Synced) && outcomes.contains(&Outcome::Snoozed));
    assert!(world.reload(&free).await.synced);
    transaction.rollback().await.unwrap();
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
}

/// Claims the relay's due job, and settles it as a success whose call took this long.
async fn answered_after(world: &World, relay: &Relay, latency: Duration) {
    world.rename(relay, &format!("{latency:?} {}", RelayId::random())).await;
    let job = world.fetch().await;
    let Claim::Ready(lease) = world.claim(&job, &relay.id).await else { panic!("no lease") };
    let attempt = Attempt { latency, ..Attempt::default() };
    let completion = Completion { job, lease: *lease, attempt, sent: serde_json::json!({}) };
    let instances = &world.context.instances;
    let completed = provision::complete(&world.db, &[completion], instances).await.unwrap();
    assert!(matches!(completed[..], [Completed::Written { .. }]));
}

async fn allowed(world: &World) -> f64 {
    let instance = instance::list(&world.db).await.unwrap().remove(0);
    instance.calls_allowed.expect("the instance has answered")
}

/// Lets the round of calls pass in which the limit fell last.
async fn pass_round(world: &World) {
    sqlx::query("update zooid_instance set limited_at = limited_at - interval '1 minute'")
        .execute(&world.db)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_limit_follows_the_latency_of_the_instance() {
    let world = World::new().await; // its time-out is 15 s
    let relay = world.synced_relay("alpha").await;
    assert!(
        (allowed(&world).await - 9.0).abs() < 0.01,
        "eight at first, one more per quick answer"
    );
    for _ in 0..30 {
        answered_after(&world, &relay, Duration::from_millis(10)).await;
    }
    assert!((allowed(&world).await - 32.0).abs() < 0.01, "up to the operator's limit");
    let slow = Duration::from_secs(6);
    answered_after(&world, &relay, slow).await;
    answered_after(&world, &relay, slow).await;
    assert!((allowed(&world).await - 22.4).abs() < 0.01, "once per round of calls");
    for _ in 0..20 {
        pass_round(&world).await;
        answered_after(&world, &relay, slow).await;
    }
    assert!((allowed(&world).await - 1.0).abs() < 0.01, "never below one");
    answered_after(&world, &relay, Duration::from_secs(3)).await;
    assert!((allowed(&world).await - 1.0).abs() < 0.01, "neither quick nor slow");
    answered_after(&world, &relay, Duration::from_secs(1)).await;
    answered_after(&world, &relay, Duration::from_secs(1)).await;
    assert!((allowed(&world).await - 2.5).abs() < 0.01, "one more per round of calls");
}

#[tokio::test]
async fn a_time_out_halves_the_limit_for_every_process() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let job = world.fetch().await;
    let Claim::Ready(lease) = world.claim(&job, &relay.id).await else { panic!("no lease") };
    let failure = Failure {
        reached: Reached::Unanswered { is_timeout: true },
        ..Failure::new(FailureKind::Transient, "no answer")
    };
    world.fail(&job, &lease, &failure).await;
    assert!((allowed(&world).await - 4.0).abs() < 0.01);
    let mut requests = Vec::new();
    for number in 0..8 {
        world.relay(&format!("relay-{number}")).await;
        requests.push(request(world.fetch().await));
    }
    let claims = provision::claim(&world.db, &requests, &world.context.instances).await.unwrap();
    assert_eq!(claims.iter().filter(|claim| matches!(claim, Claim::Ready(_))).count(), 4);
}
