//! The upsert queue under random interleavings of what mutates, fetches, claims, settles, dies,
//! rescues and reconciles, while zooid comes and goes. After every step: at most one waiting job per
//! relay, at most one lease, no pending relay without a job, no call that the breaker or the limit
//! forbids, and nobody exhausted by an outage. At the end: what is on zooid is the last mutation.
//!
//! The steps are the real statements on a real PostgreSQL; only the choice of the next one is made
//! up. Each actor holds what a worker would hold in memory.

use std::time::Duration;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tender_jobs::{
    queue::{self, Claim, Failure, Job, Lease, Reached, instance::BreakerPolicy},
    relay::{FailureKind, Relay},
};
use tender_workers::Settings;

use crate::support::{World, by, settings};

const ACTORS: usize = 3;
/// Fewer calls than actors, and a breaker that two relays can open.
const MAX_IN_FLIGHT: u32 = 2;
const BREAKER: BreakerPolicy = BreakerPolicy {
    failures: 3,
    relays: 2,
    within: Duration::from_mins(1),
    wait: Duration::from_secs(30),
    wait_cap: Duration::from_mins(5),
};

#[derive(Debug, Clone)]
enum Step {
    Mutate(usize),
    AskAgain(usize),
    Fetch(usize),
    Claim(usize),
    Succeed(usize),
    Fail(usize),
    FailForGood(usize),
    /// zooid is out.
    FailOut(usize),
    /// The breaker's wait is over.
    WaitOver,
    /// The actor's process ends; its job is brought back.
    Die(usize),
    /// The actor is taken for dead, and goes on with what it holds.
    Freeze(usize),
    Reconcile,
    TimePasses,
}

fn step() -> impl Strategy<Value = Step> {
    let actor = 0..ACTORS;
    prop_oneof![
        3 => (0..2_usize).prop_map(Step::Mutate),
        1 => (0..2_usize).prop_map(Step::AskAgain),
        4 => actor.clone().prop_map(Step::Fetch),
        4 => actor.clone().prop_map(Step::Claim),
        3 => actor.clone().prop_map(Step::Succeed),
        2 => actor.clone().prop_map(Step::Fail),
        1 => actor.clone().prop_map(Step::FailForGood),
        4 => actor.clone().prop_map(Step::FailOut),
        2 => Just(Step::WaitOver),
        1 => actor.clone().prop_map(Step::Die),
        1 => actor.prop_map(Step::Freeze),
        1 => Just(Step::Reconcile),
        2 => Just(Step::TimePasses),
    ]
}

/// What a worker holds in memory.
#[derive(Default)]
struct Actor {
    worker: String,
    job: Option<Job>,
    lease: Option<Lease>,
}

struct Play {
    world: World,
    relays: Vec<Relay>,
    actors: Vec<Actor>,
    /// Per relay: the highest generation that a call has carried to zooid.
    carried: Vec<i64>,
}

impl Play {
    async fn new() -> Self {
        let settings = Settings { max_in_flight: MAX_IN_FLIGHT, breaker: BREAKER, ..settings() };
        let world = World::with(settings, |_| {}).await;
        let relays = vec![world.relay("alpha").await, world.relay("beta").await];
        let mut actors = Vec::new();
        for _ in 0..ACTORS {
            actors.push(Actor { worker: world.another_worker().await, ..Actor::default() });
        }
        Self { world, relays, actors, carried: vec![0, 0] }
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Mutate(relay) => {
                let current = self.world.reload(&self.relays[relay]).await;
                self.world.rename(&current, &format!("name {}", current.generation)).await;
            }
            Step::AskAgain(relay) => {
                let id = &self.relays[relay].id;
                tender_jobs::relay::request_sync(&self.world.db, id, &by()).await.unwrap();
            }
            Step::Fetch(actor) => self.fetch(actor).await,
            Step::Claim(actor) => self.claim(actor).await,
            Step::Succeed(actor) => self.succeed(actor).await,
            Step::Fail(actor) => {
                self.fail(actor, FailureKind::Transient, Reached::Answered).await;
            }
            Step::FailForGood(actor) => {
                self.fail(actor, FailureKind::Permanent, Reached::Answered).await;
            }
            Step::FailOut(actor) => {
                self.fail(actor, FailureKind::Transient, Reached::Outage).await;
            }
            Step::WaitOver => self.pass_wait().await,
            Step::Die(actor) => {
                self.bury(actor).await;
                let worker = self.world.another_worker().await;
                self.actors[actor] = Actor { worker, ..Actor::default() };
            }
            Step::Freeze(actor) => self.bury(actor).await,
            Step::Reconcile => {
                self.world.reconcile().await;
            }
            Step::TimePasses => {
                self.world.make_due().await;
                sqlx::query("update relay set lease_until = now() - interval '1 s' where lease_until is not null")
                    .execute(&self.world.db).await.unwrap();
            }
        }
    }

    async fn bury(&mut self, actor: usize) {
        sqlx::query(
            "update apalis.workers set last_seen = now() - interval '1 hour' where id = $1",
        )
        .bind(&self.actors[actor].worker)
        .execute(&self.world.db)
        .await
        .unwrap();
        self.world.rescue().await;
    }

    async fn fetch(&mut self, actor: usize) {
        if self.actors[actor].job.is_none() {
            self.actors[actor].job = self.world.fetch_as(&self.actors[actor].worker).await;
        }
    }

    async fn claim(&mut self, actor: usize) {
        let was_open = self.is_open().await;
        let actor = &mut self.actors[actor];
        if actor.lease.is_some() {
            return;
        }
        let Some(job) = &actor.job else { return };
        let relay_id = queue::SyncPayload::parse(&job.payload).unwrap().relay_id;
        match self.world.claim(job, &relay_id).await {
            Claim::Ready(lease) => {
                assert!(!was_open, "a call that the breaker forbids");
                actor.lease = Some(*lease);
            }
            Claim::Lost | Claim::Held => actor.job = None,
            Claim::InStep | Claim::Gone => {
                queue::finish(&self.world.db, job, &"in step".into()).await.unwrap();
                actor.job = None;
            }
            Claim::Later => {}
            Claim::Busy => {
                let second = Duration::from_secs(1);
                queue::snooze(&self.world.db, job, &relay_id, second).await.unwrap();
                actor.job = None;
            }
        }
    }

    async fn succeed(&mut self, actor: usize) {
        let Some(lease) = self.actors[actor].lease.take() else { return };
        let job = self.actors[actor].job.take().unwrap();
        let index = self.relays.iter().position(|relay| relay.id == lease.relay.id).unwrap();
        let settled = self.world.complete(&job, &lease).await;
        if let queue::Completed::Written { .. } = settled {
            assert!(
                lease.relay.generation >= self.carried[index],
                "an older state was written over a newer"
            );
            self.carried[index] = lease.relay.generation;
        }
    }

    async fn pass_wait(&self) {
        sqlx::query("update zooid_instance set retry_at = now() - interval '1 ms' where opened_at is not null")
            .execute(&self.world.db)
            .await
            .unwrap();
    }

    /// Whether the breaker lets a call start now.
    async fn is_open(&self) -> bool {
        sqlx::query_scalar(
            "select exists (select from zooid_instance where opened_at is not null
                            and (retry_at > now() or probe_until > now()))",
        )
        .fetch_one(&self.world.db)
        .await
        .unwrap()
    }

    async fn fail(&mut self, actor: usize, kind: FailureKind, reached: Reached) {
        let Some(lease) = self.actors[actor].lease.take() else { return };
        let job = self.actors[actor].job.take().unwrap();
        let failure = Failure { reached, ..Failure::new(kind, "made up") };
        self.world.fail(&job, &lease, &failure).await;
    }

    /// The invariants, after every step.
    async fn check(&self, step: &Step) {
        let doubled: i64 = sqlx::query_scalar(
            "select count(*) from (
                 select convert_from(job, 'UTF8')::jsonb->>'relay_id' from apalis.jobs
                 where job_type = 'sync-relay' and status in ('Pending', 'Failed', 'Queued')
                 group by 1 having count(*) > 1) doubled",
        )
        .fetch_one(&self.world.db)
        .await
        .unwrap();
        assert_eq!(doubled, 0, "two waiting jobs for one relay after {step:?}");
        let forgotten: i64 = sqlx::query_scalar(
            "select count(*) from relay where not synced and exhausted_at is null and not exists (
                 select from apalis.jobs where job_type = 'sync-relay'
                 and status in ('Pending', 'Failed', 'Queued', 'Running')
                 and convert_from(job, 'UTF8')::jsonb->>'relay_id' = relay.id)",
        )
        .fetch_one(&self.world.db)
        .await
        .unwrap();
        assert_eq!(forgotten, 0, "a pending relay has no job after {step:?}");
        let overspent: i64 = sqlx::query_scalar(
            "select count(*) from apalis.jobs where attempts > 7 and status in ('Failed', 'Done', 'Killed')",
        )
        .fetch_one(&self.world.db)
        .await
        .unwrap();
        assert_eq!(overspent, 0, "more than seven attempts after {step:?}");
        let in_flight: i64 =
            sqlx::query_scalar("select count(*) from apalis.jobs where status = 'Running' and exist(metadata, 'instance')")
                .fetch_one(&self.world.db)
                .await
                .unwrap();
        assert!(in_flight <= i64::from(MAX_IN_FLIGHT), "{in_flight} calls after {step:?}");
    }

    /// Everybody dies; one healthy worker does what is left.
    async fn end(mut self) {
        for relay in 0..2 {
            self.take(&Step::AskAgain(relay)).await; // also those that gave up
        }
        self.world.expire_leases().await;
        self.world.rescue().await;
        let worker = self.world.another_worker().await;
        for _ in 0..50 {
            self.pass_wait().await;
            self.world.make_due().await;
            let Some(job) = self.world.fetch_as(&worker).await else { break };
            tender_workers::sync_relay::attempt(&self.world.context, &job).await;
        }
        for relay in &self.relays {
            let relay = self.world.reload(relay).await;
            assert!(relay.synced, "{relay:?}");
            let document = &self.world.zooid.documents()[relay.id.as_str()];
            assert_eq!(document["info"]["name"], relay.info_name.as_str());
        }
    }
}

#[test]
fn no_interleaving_loses_doubles_or_forgets_a_change() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let steps = proptest::collection::vec(step(), 1..60);
    TestRunner::new(config)
        .run(&steps, |steps| {
            runtime.block_on(async {
                let mut play = Play::new().await;
                for step in &steps {
                    play.take(step).await;
                    play.check(step).await;
                }
                play.end().await;
            });
            Ok(())
        })
        .unwrap();
}

/// The same statements by many at once, where the database makes the interleaving.
#[tokio::test(flavor = "multi_thread")]
async fn mutations_and_workers_at_the_same_time_end_in_the_last_state() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let stop = tokio_util::sync::CancellationToken::new();
    let workers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(tender_workers::run(world.context.clone(), stop.clone())))
        .collect();
    let mutators: Vec<_> = (0..4)
        .map(|mutator| {
            let (db, id) = (world.db.clone(), relay.id.clone());
            tokio::spawn(async move {
                for number in 0..50 {
                    let name = Some(format!("{mutator}.{number}"));
                    let change =
                        tender_jobs::relay::Change { info_name: name, ..Default::default() };
                    tender_jobs::relay::update(&db, &id, &change, &by()).await.unwrap();
                }
            })
        })
        .collect();
    for mutator in mutators {
        mutator.await.unwrap();
    }
    crate::support::eventually("it is synced", async || world.reload(&relay).await.synced).await;
    let last = world.reload(&relay).await;
    assert_eq!(last.generation, 201);
    assert_eq!(world.zooid.documents()[relay.id.as_str()]["info"]["name"], last.info_name.as_str());
    assert!(world.zooid.overlaps().is_empty(), "two calls for one relay at once");
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
}
