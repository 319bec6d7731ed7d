//! The outage breaker, at the step.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tender::demo::zooid::Fault;
use tender_jobs::{
    provision::{
        self, Claim, Failure, Reached, SyncPayload, Verdict,
        instance::{self, BreakerState, Instance},
        relay::{FailureKind, Relay, RelayId},
    },
    queue::{self, Job},
};
use tender_workers::provision::sync_relay::{self, Outcome};

use crate::support::{Bracket, World};

const OUT: Fault = Fault::Status(502, None);

async fn breaker(world: &World) -> Instance {
    let mut instances = instance::list(&world.db).await.unwrap();
    assert_eq!(instances.len(), 1, "{instances:?}");
    instances.remove(0)
}

/// Fails `calls` attempts in a row, by turns from `relays` relays. All are within the breaker's minute,
/// however slow the machine is.
async fn outage(world: &World, relays: usize, calls: usize) -> Vec<Relay> {
    world.zooid.plan(None, OUT, None);
    let mut made = Vec::new();
    for number in 0..relays {
        made.push(world.relay(&format!("out-{number}")).await);
    }
    for call in 0..calls {
        let job = due_job_of(world, &format!("out-{}", call % relays)).await;
        sync_relay::attempt(&world.context, &job).await;
        sqlx::query("update zooid_failure set failed_at = now()").execute(&world.db).await.unwrap();
    }
    made
}

async fn open(world: &World) -> Vec<Relay> {
    let relays = outage(world, 10, 10).await;
    assert_eq!(breaker(world).await.breaker, BreakerState::Open);
    relays
}

/// Lets the breaker's wait pass.
async fn pass_wait(world: &World) {
    sqlx::query("update zooid_instance set retry_at = now() - interval '1 ms'")
        .execute(&world.db)
        .await
        .unwrap();
    world.make_due().await;
}

/// When the open breaker allows its next probe.
async fn next_probe(world: &World) -> DateTime<Utc> {
    breaker(world).await.retry_at.unwrap()
}

#[tokio::test]
async fn ten_failures_in_a_row_from_five_relays_open_it() {
    let world = World::new().await;
    outage(&world, 5, 9).await;
    assert_eq!(breaker(&world).await.breaker, BreakerState::Closed);
    let tenth = due_job_of(&world, "out-4").await;
    let attempt = sync_relay::attempt(&world.context, &tenth);
    let (outcome, bracket) = Bracket::of(&world.db, attempt).await;
    assert!(matches!(outcome, Outcome::Failed(Verdict::Held(_))));
    let instance = breaker(&world).await;
    assert_eq!(instance.breaker, BreakerState::Open);
    assert!(instance.last_error.contains("502"), "{}", instance.last_error);
    bracket.assert(next_probe(&world).await, Duration::from_secs(30));
}

#[tokio::test]
async fn four_relays_never_open_it_and_follow_their_schedule() {
    let world = World::new().await;
    let relays = outage(&world, 4, 20).await;
    assert_eq!(breaker(&world).await.breaker, BreakerState::Closed);
    let mut spent = 0;
    for relay in &relays {
        spent += world.reload(relay).await.attempts;
    }
    assert_eq!(spent, 20);
}

#[tokio::test]
async fn an_answer_in_between_starts_the_count_anew() {
    let world = World::new().await;
    outage(&world, 9, 9).await;
    world.zooid.heal();
    world.zooid.plan(None, Fault::Status(418, None), Some(1));
    world.relay("refused").await;
    let job = due_job_of(&world, "refused").await;
    assert!(matches!(sync_relay::attempt(&world.context, &job).await, Outcome::Failed(_)));
    assert_eq!(breaker(&world).await.failures, 0, "zooid is there: it refused");
    world.zooid.plan(None, OUT, None);
    world.relay("tenth").await;
    let job = due_job_of(&world, "tenth").await;
    sync_relay::attempt(&world.context, &job).await;
    assert_eq!(breaker(&world).await.breaker, BreakerState::Closed);
}

/// The job of one relay, made the only one that is due.
async fn due_job_of(world: &World, subdomain: &str) -> Job {
    sqlx::query(
        "update apalis.jobs set run_at = case when idempotency_key = (select 'relay:' || id from relay where subdomain = $1)
             then now() - interval '1 s' else now() + interval '1 hour' end where status in ('Pending', 'Failed')",
    )
    .bind(subdomain)
    .execute(&world.db)
    .await
    .unwrap();
    world.fetch().await
}

#[tokio::test]
async fn failures_longer_ago_than_a_minute_do_not_count() {
    let world = World::new().await;
    outage(&world, 9, 9).await;
    sqlx::query("update zooid_failure set failed_at = failed_at - interval '61 s'")
        .execute(&world.db)
        .await
        .unwrap();
    world.relay("tenth").await;
    let tenth = due_job_of(&world, "tenth").await;
    sync_relay::attempt(&world.context, &tenth).await;
    assert_eq!(breaker(&world).await.breaker, BreakerState::Closed);
}

#[tokio::test]
async fn while_it_is_open_nothing_is_called_and_no_attempt_is_spent() {
    let world = World::new().await;
    open(&world).await;
    let relay = world.relay("later").await;
    let calls = world.zooid.calls().len();
    let job = due_job_of(&world, "later").await;
    let attempt = sync_relay::attempt(&world.context, &job);
    let (outcome, bracket) = Bracket::of(&world.db, attempt).await;
    assert_eq!(outcome, Outcome::Held);
    assert_eq!(world.zooid.calls().len(), calls);
    let job = world.job_by_id(&job.id).await;
    assert_eq!((job.summary.state, job.summary.attempts), (queue::JobState::Waiting, 0));
    assert_eq!(job.key, Some(format!("relay:{}", relay.id)), "the next mutation finds it");
    // Due at the next probe, or up to a third of 30 s later. The remaining wait is read before it is
    // written, so the time between both is added to it.
    let (probe, rounding) = (next_probe(&world).await, Duration::from_millis(1));
    let latest = probe + Duration::from_secs(10) + (bracket.after - bracket.before);
    let run_at = job.summary.run_at;
    assert!(
        probe - rounding <= run_at && run_at <= latest + rounding,
        "{run_at}, probe at {probe}"
    );
    let relay = world.reload(&relay).await;
    assert_eq!((relay.attempts, relay.sync_error), (0, String::new()));
}

#[tokio::test]
async fn one_probe_at_a_time_whose_failure_doubles_the_wait_and_spends_nothing() {
    let world = World::new().await;
    open(&world).await;
    for expected in [60, 120, 240, 300, 300] {
        pass_wait(&world).await;
        assert_eq!(breaker(&world).await.breaker, BreakerState::HalfOpen);
        let (probe, other) = (world.fetch().await, world.fetch().await);
        let before = spent(&world).await;
        let id = relay_of(&probe);
        let Claim::Ready(lease) = world.claim(&probe, &id).await else { panic!("no probe") };
        assert_eq!(sync_relay::attempt(&world.context, &other).await, Outcome::Held);
        let failure = Failure {
            reached: Reached::Outage,
            ..Failure::new(FailureKind::Transient, "still out")
        };
        let failing = world.fail(&probe, &lease, &failure);
        let (settled, bracket) = Bracket::of(&world.db, failing).await;
        assert!(matches!(settled, queue::Settled::Written(Verdict::Held(_))), "{settled:?}");
        assert_eq!(spent(&world).await, before);
        bracket.assert(next_probe(&world).await, Duration::from_secs(expected));
    }
}

fn relay_of(job: &Job) -> RelayId {
    SyncPayload::parse(&job.payload).unwrap().relay_id
}

async fn spent(world: &World) -> i64 {
    sqlx::query_scalar("select sum(attempts)::bigint from apalis.jobs")
        .fetch_one(&world.db)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_probe_whose_worker_died_makes_way() {
    let world = World::new().await;
    open(&world).await;
    pass_wait(&world).await;
    let probe = world.fetch().await;
    assert!(matches!(world.claim(&probe, &relay_of(&probe)).await, Claim::Ready(_)));
    sqlx::query("update zooid_instance set probe_until = now() - interval '1 ms'")
        .execute(&world.db)
        .await
        .unwrap();
    let next = world.fetch().await;
    assert!(matches!(world.claim(&next, &relay_of(&next)).await, Claim::Ready(_)));
}

#[tokio::test]
async fn a_success_closes_it_and_all_that_waits_goes_within_two_seconds() {
    let world = World::new().await;
    let mut relays = open(&world).await;
    for number in 0..5 {
        let subdomain = format!("held-{number}");
        relays.push(world.relay(&subdomain).await);
        let job = due_job_of(&world, &subdomain).await;
        assert_eq!(sync_relay::attempt(&world.context, &job).await, Outcome::Held);
    }
    world.zooid.heal();
    // The wait passes for the breaker only: the others' jobs wait for theirs still.
    sqlx::query("update zooid_instance set retry_at = now() - interval '1 ms'")
        .execute(&world.db)
        .await
        .unwrap();
    let probe = due_job_of(&world, "held-0").await;
    assert_eq!(sync_relay::attempt(&world.context, &probe).await, Outcome::Synced);
    assert_eq!(breaker(&world).await.breaker, BreakerState::Closed);
    let late: i64 = sqlx::query_scalar(
        "select count(*) from apalis.jobs where status in ('Pending', 'Failed') and run_at > now() + interval '2 s'",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert_eq!(late, 0);
    world.make_due().await;
    while let Some(job) = world.try_fetch().await {
        assert_eq!(sync_relay::attempt(&world.context, &job).await, Outcome::Synced);
    }
    assert_eq!(world.zooid.len(), relays.len());
}

#[tokio::test]
async fn what_a_dead_closer_left_is_released_by_the_next_round() {
    let world = World::new().await;
    open(&world).await;
    world.relay("held").await;
    let job = due_job_of(&world, "held").await;
    assert_eq!(sync_relay::attempt(&world.context, &job).await, Outcome::Held);
    provision::release_waiting(&world.db).await.unwrap();
    let wait = world.job_by_id(&job.id).await.summary.run_at;
    let soon = queue::now(&world.db).await.unwrap() + Duration::from_secs(2);
    assert!(wait > soon, "it is open still");
    sqlx::query("update zooid_instance set opened_at = null, retry_at = null, failed_probes = 0")
        .execute(&world.db)
        .await
        .unwrap();
    provision::release_waiting(&world.db).await.unwrap();
    let wait = world.job_by_id(&job.id).await.summary.run_at;
    assert!(wait <= queue::now(&world.db).await.unwrap() + Duration::from_secs(2));
}

#[tokio::test]
async fn a_slow_outage_gives_up_on_nobody() {
    let world = World::new().await;
    // Five relays fail one after the other, minutes apart: never ten calls within one.
    let relays = outage(&world, 5, 5).await;
    for _ in 0..6 {
        for number in 0..5 {
            sqlx::query("update zooid_failure set failed_at = failed_at - interval '20 s'")
                .execute(&world.db)
                .await
                .unwrap();
            let job = due_job_of(&world, &format!("out-{number}")).await;
            sync_relay::attempt(&world.context, &job).await;
        }
    }
    assert_eq!(breaker(&world).await.breaker, BreakerState::Open);
    for relay in &relays {
        assert_eq!(world.reload(relay).await.exhausted_at, None);
    }
}
