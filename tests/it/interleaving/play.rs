//! The state of a play, what each step does to it, and what must hold after each.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tender_jobs::{
    provision::{
        self, BreakerPolicy, Claim, Failure, Lease, Reached,
        relay::{self, FailureKind, Relay},
    },
    queue::{self, Job},
};
use tender_workers::provision::{Settings, sync_relay};

use super::{ACTORS, Step};
use crate::support::{World, by, settings};

/// Fewer calls than actors, and a breaker that two relays can open.
const MAX_IN_FLIGHT: u32 = 2;
const BREAKER: BreakerPolicy = BreakerPolicy {
    failures: 3,
    relays: 2,
    within: Duration::from_mins(1),
    // Longer than a slow play: only `WaitOver` ends a wait.
    wait: Duration::from_hours(1),
    wait_cap: Duration::from_hours(4),
};
/// What a worker holds in memory.
#[derive(Default)]
struct Actor {
    worker: String,
    job: Option<Job>,
    lease: Option<Lease>,
}

pub(super) struct Play<'a> {
    world: &'a World,
    relays: Vec<Relay>,
    actors: Vec<Actor>,
    /// Per relay: the highest generation that a call has carried to zooid.
    carried: Vec<i64>,
}

/// The world of every play.
pub(super) async fn world() -> World {
    let settings = Settings { max_in_flight: MAX_IN_FLIGHT, breaker: BREAKER, ..settings() };
    World::with(settings, |_| {}).await
}

impl<'a> Play<'a> {
    /// Starts with an empty ledger and an empty zooid.
    pub(super) async fn new(world: &'a World) -> Self {
        sqlx::query(
            "truncate relay, activity, apalis.jobs, apalis.workers, zooid_instance, zooid_failure cascade",
        )
        .execute(&world.db)
        .await
        .unwrap();
        for relay_id in world.zooid.documents().keys() {
            world.zooid.lose(relay_id);
        }
        let relays = vec![world.relay("alpha").await, world.relay("beta").await];
        let mut actors = Vec::new();
        for _ in 0..ACTORS {
            actors.push(Actor { worker: world.another_worker().await, ..Actor::default() });
        }
        Self { world, relays, actors, carried: vec![0, 0] }
    }

    pub(super) async fn take(&mut self, step: &Step) {
        match *step {
            Step::Mutate(relay) => {
                let current = self.world.reload(&self.relays[relay]).await;
                self.world.rename(&current, &format!("name {}", current.generation)).await;
            }
            Step::AskAgain(relay) => {
                let id = &self.relays[relay].id;
                relay::request_sync(&self.world.db, id, &by()).await.unwrap();
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
        let closed_until = self.closed_until().await;
        let actor = &mut self.actors[actor];
        if actor.lease.is_some() {
            return;
        }
        let Some(job) = &actor.job else { return };
        let relay_id = provision::SyncPayload::parse(&job.payload).unwrap().relay_id;
        match self.world.claim(job, &relay_id).await {
            Claim::Ready(lease) => {
                let now = queue::now(&self.world.db).await.unwrap();
                assert!(closed_until.is_none_or(|at| at <= now), "a call that the breaker forbids");
                actor.lease = Some(*lease);
            }
            Claim::Lost | Claim::Held => actor.job = None,
            Claim::InStep | Claim::GaveUp | Claim::Gone => {
                queue::finish(&self.world.db, job, &"in step".into()).await.unwrap();
                actor.job = None;
            }
            Claim::Later => {}
            Claim::Busy => {
                let second = Duration::from_secs(1);
                queue::requeue(&self.world.db, job, &queue::Requeue::wait(second)).await.unwrap();
                actor.job = None;
            }
        }
    }

    async fn succeed(&mut self, actor: usize) {
        let Some(lease) = self.actors[actor].lease.take() else { return };
        let job = self.actors[actor].job.take().unwrap();
        let index = self.relays.iter().position(|relay| relay.id == lease.relay.id).unwrap();
        let settled = self.world.complete(&job, &lease).await;
        if let provision::Completed::Written { .. } = settled {
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

    /// Until when the open breaker lets no call start; `None` if a call may start now.
    async fn closed_until(&self) -> Option<DateTime<Utc>> {
        sqlx::query_scalar(
            "select max(greatest(retry_at, probe_until)) from zooid_instance
             where opened_at is not null and (retry_at > now() or probe_until > now())",
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
    pub(super) async fn check(&self, step: &Step) {
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
        let left_exhausted: i64 = sqlx::query_scalar(
            "select count(*) from relay join zooid_instance on name = outage_instance
             where opened_at is null and exhausted_at <= recovered_at",
        )
        .fetch_one(&self.world.db)
        .await
        .unwrap();
        assert_eq!(left_exhausted, 0, "exhausted by an outage that is over, after {step:?}");
        // A call counts for as long as its lease lasts.
        let in_flight: i64 = sqlx::query_scalar(
            "select count(*) from apalis.jobs where status = 'Running' and exist(metadata, 'instance')
                 and lock_at > now() - make_interval(secs => $1)",
        )
        .bind(self.world.context.instances.lease().as_secs_f64())
        .fetch_one(&self.world.db)
        .await
        .unwrap();
        assert!(in_flight <= i64::from(MAX_IN_FLIGHT), "{in_flight} calls after {step:?}");
    }

    /// Everybody dies; one healthy worker does what is left.
    pub(super) async fn end(mut self) {
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
            sync_relay::attempt(&self.world.context, &job).await;
        }
        for relay in &self.relays {
            let relay = self.world.reload(relay).await;
            assert!(relay.synced, "{relay:?}");
            let document = &self.world.zooid.documents()[relay.id.as_str()];
            assert_eq!(document["info"]["name"], relay.info_name.as_str());
        }
    }
}
