//! The limit of calls in flight, and claims beside a locked relay.

use tender_jobs::{
    provision::{self, Claim, ClaimRequest, SyncPayload, instance},
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
    let mut transaction = world.db.begin().await.unwrap();
    sqlx::query("select from relay where id = $1 for update")
        .bind(locked.id.as_str())
        .execute(&mut *transaction)
        .await
        .unwrap();
    let jobs = queue::fetch(&world.db, &world.worker, provision::SYNC_RELAY, 2, queue::Depth::All)
        .await
        .unwrap();
    assert_eq!(jobs.len(), 2);
    let attempts = jobs.iter().map(|job| sync_relay::attempt(&world.context, job));
    let outcomes = futures_util::future::join_all(attempts).await;
    assert!(outcomes.contains(&Outcome::Synced) && outcomes.contains(&Outcome::Snoozed));
    assert!(world.reload(&free).await.synced);
    transaction.rollback().await.unwrap();
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
}
