//! Rescue: the jobs of the dead, and pruning of what is finished.

use std::time::Duration;

use tender_jobs::queue::{self, Claim, JobState, Pruned, Rescued, Retention};
use tender_workers::sync_relay::Outcome;

use crate::support::World;

async fn let_die(world: &World) {
    world.expire_leases().await;
}

#[tokio::test]
async fn the_living_keep_their_jobs() {
    let world = World::new().await;
    world.relay("alpha").await;
    world.fetch().await;
    assert_eq!(world.rescue().await, Rescued::default());
}

#[tokio::test]
async fn a_job_that_was_only_fetched_waits_again_as_it_was() {
    let world = World::new().await;
    world.relay("alpha").await;
    world.fetch().await;
    let_die(&world).await;
    assert_eq!(world.rescue().await, Rescued { requeued: 1, superseded: 0 });
    let job = world.job().await;
    assert_eq!((job.summary.state, job.summary.attempts), (JobState::Waiting, 0));
    assert!(job.key.is_some() && job.lock_by.is_none());
}

#[tokio::test]
async fn a_job_that_was_started_has_spent_an_attempt_and_gets_its_key_back() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let job = world.fetch().await;
    assert!(matches!(world.claim(&job, &relay.id).await, Claim::Ready(_)));
    let_die(&world).await;
    assert_eq!(world.rescue().await, Rescued { requeued: 1, superseded: 0 });
    let job = world.job().await;
    assert_eq!((job.summary.state, job.summary.attempts), (JobState::Waiting, 1));
    assert_eq!(job.key, Some(format!("relay:{}", relay.id)));
    assert_eq!(world.attempt().await, Outcome::Synced);
}

#[tokio::test]
async fn a_started_job_gives_way_to_a_newer_one() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let job = world.fetch().await;
    assert!(matches!(world.claim(&job, &relay.id).await, Claim::Ready(_)));
    world.rename(&relay, "newer").await;
    let_die(&world).await;
    assert_eq!(world.rescue().await, Rescued { requeued: 0, superseded: 1 });
    assert_eq!(world.job_by_id(&job.id).await.summary.state, JobState::Done);
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.reload(&relay).await.synced);
}

#[tokio::test]
async fn a_job_that_a_living_worker_lost_is_brought_back_after_two_minutes() {
    let world = World::new().await;
    world.relay("alpha").await;
    world.fetch().await;
    sqlx::query("update apalis.jobs set lock_at = now() - interval '119 s'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(world.rescue().await.requeued, 0);
    sqlx::query("update apalis.jobs set lock_at = now() - interval '121 s'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(world.rescue().await.requeued, 1);
}

#[tokio::test]
async fn many_rescuers_bring_each_job_back_once() {
    let settings = tender_workers::Settings { max_in_flight: 100, ..crate::support::settings() };
    let world = World::with(settings, |_| {}).await;
    for number in 0..50 {
        world.relay(&format!("relay-{number}")).await;
        let job = world.fetch().await;
        let id = queue::SyncPayload::parse(&job.payload).unwrap().relay_id;
        assert!(matches!(world.claim(&job, &id).await, Claim::Ready(_)));
    }
    let_die(&world).await;
    let rescuers: Vec<_> = (0..4)
        .map(|_| {
            let db = world.db.clone();
            tokio::spawn(async move {
                queue::rescue(&db, tender_workers::DEAD_AFTER, tender_workers::STUCK_AFTER)
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut requeued = 0;
    for rescuer in rescuers {
        requeued += rescuer.await.unwrap().requeued;
    }
    assert_eq!(requeued, 50);
    assert!(world.jobs().await.iter().all(|job| job.summary.attempts == 1));
}

#[tokio::test]
async fn an_unreadable_job_of_the_dead_waits_again_and_is_killed_when_it_is_read() {
    let world = World::new().await;
    world.relay("alpha").await;
    world.fetch().await;
    sqlx::query("update apalis.jobs set job = 'nonsense'").execute(&world.db).await.unwrap();
    let_die(&world).await;
    assert_eq!(world.rescue().await.requeued, 1);
    assert_eq!(world.attempt().await, Outcome::Unreadable);
}

#[tokio::test]
async fn finished_jobs_leave_after_their_time_and_dead_workers_after_a_day() {
    let world = World::new().await;
    world.synced_relay("done-long-ago").await;
    sqlx::query("update apalis.jobs set done_at = now() - interval '25 h'")
        .execute(&world.db)
        .await
        .unwrap();
    world.synced_relay("done-just-now").await;
    world.zooid.plan(None, tender::demo::zooid::Fault::Status(400, None), Some(1));
    world.relay("killed").await;
    world.attempt().await;
    sqlx::query("update apalis.jobs set done_at = now() - interval '25 h' where status = 'Killed'")
        .execute(&world.db)
        .await
        .unwrap();
    world.relay("waiting").await;
    sqlx::query("update apalis.workers set last_seen = now() - interval '2 days'")
        .execute(&world.db)
        .await
        .unwrap();

    let keep = Retention { done: Duration::from_hours(24), killed: Duration::from_hours(168) };
    assert_eq!(queue::prune(&world.db, keep, 20).await.unwrap(), Pruned { jobs: 1, workers: 1 });
    assert_eq!(world.jobs().await.len(), 3);
    let keep = Retention { done: Duration::from_hours(24), killed: Duration::from_hours(24) };
    assert_eq!(queue::prune(&world.db, keep, 20).await.unwrap().jobs, 1);
}
