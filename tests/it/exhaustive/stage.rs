//! What a worker holds in memory and what zooid has, and what a step does to both.

use tender_jobs::{
    provision::{
        Claim, Failure, Lease, Reached,
        relay::{FailureKind, Relay},
    },
    queue::{self, Job},
};

use super::orders::Actor;
use crate::support::World;

/// What becomes of the first worker's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Answered,
    /// It is given up, and applied later.
    Late,
    /// It is applied later, and its worker has died.
    Dead,
}

#[derive(Default)]
struct Worker {
    name: String,
    steps: usize,
    job: Option<Job>,
    lease: Option<Lease>,
    is_late: bool,
}

/// What the ledger says.
#[derive(Debug, sqlx::FromRow)]
struct Look {
    generation: i64,
    synced: bool,
    is_open: bool,
    is_leased: bool,
    /// Jobs that hold the relay's key.
    waiting: i64,
}

impl Look {
    /// The relay is in step for good.
    fn is_settled(&self) -> bool {
        self.synced && !self.is_open && !self.is_leased
    }
}

pub(super) struct Stage<'a> {
    world: &'a World,
    relay: Relay,
    first_call: End,
    workers: [Worker; 2],
    changes: usize,
    /// The generation that zooid has.
    on_zooid: i64,
    /// The generation of a call that is to be applied.
    late: Option<i64>,
}

impl<'a> Stage<'a> {
    /// A relay that zooid has, and that has changed.
    pub(super) async fn new(world: &'a World, first_call: End) -> Self {
        sqlx::query(
            "truncate relay, activity, apalis.jobs, apalis.workers, zooid_instance, zooid_failure cascade",
        )
        .execute(&world.db)
        .await
        .unwrap();
        let relay = world.relay("alpha").await;
        let [first, second] = [world.another_worker().await, world.another_worker().await];
        let worker = |name| Worker { name, ..Worker::default() };
        let workers = [worker(first), worker(second)];
        Self { world, relay, first_call, workers, changes: 0, on_zooid: 0, late: None }
    }

    pub(super) async fn step(&mut self, actor: Actor) {
        match actor {
            Actor::FirstWorker => self.work(0).await,
            Actor::SecondWorker => self.work(1).await,
            Actor::Tenant => {
                self.changes += 1;
                self.world.rename(&self.relay, &format!("change {}", self.changes)).await;
            }
            Actor::LateCall => self.land(),
            Actor::Rescuer => self.bury().await,
        }
    }

    fn land(&mut self) {
        if let Some(generation) = self.late.take() {
            self.on_zooid = generation;
        }
    }

    /// The first worker is taken for dead, and its lease has ended.
    async fn bury(&self) {
        let name = &self.workers[0].name;
        for statement in [
            "update apalis.workers set last_seen = now() - interval '1 hour' where id = $1",
            "update relay set lease_until = now() - interval '1 s' where lease_owner = $1",
        ] {
            sqlx::query(statement).bind(name).execute(&self.world.db).await.unwrap();
        }
        self.world.rescue().await;
    }

    async fn work(&mut self, index: usize) {
        self.workers[index].steps += 1;
        // In the largest case only the first worker claims apart from its fetch.
        let is_apart = index == 0 && self.first_call == End::Answered;
        match self.workers[index].steps + usize::from(!is_apart) {
            1 => self.fetch(index).await,
            2 => {
                if !is_apart {
                    self.fetch(index).await;
                }
                self.claim(index).await;
            }
            3 => self.send(index),
            _ => self.settle(index).await,
        }
    }

    async fn fetch(&mut self, index: usize) {
        self.world.make_due_now().await;
        let name = self.workers[index].name.clone();
        self.workers[index].job = self.world.fetch_as(&name).await;
    }

    async fn claim(&mut self, index: usize) {
        let Some(job) = self.workers[index].job.clone() else { return };
        match self.world.claim(&job, &self.relay.id).await {
            Claim::Ready(lease) => self.workers[index].lease = Some(*lease),
            Claim::InStep | Claim::Gone | Claim::GaveUp => {
                queue::finish(&self.world.db, &job, &"in step".into()).await.unwrap();
            }
            Claim::Busy | Claim::Later => {
                let wait = queue::Requeue::wait(std::time::Duration::from_secs(1));
                queue::requeue(&self.world.db, &job, &wait).await.unwrap();
            }
            Claim::Lost | Claim::Held => {}
        }
    }

    fn send(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        let Some(lease) = &worker.lease else { return };
        if index == 0 && self.first_call != End::Answered {
            worker.is_late = true;
            self.late = Some(lease.relay.generation);
        } else {
            self.on_zooid = lease.relay.generation;
        }
    }

    async fn settle(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        let (Some(job), Some(lease)) = (worker.job.take(), worker.lease.take()) else { return };
        if worker.is_late {
            let reached = Reached::Unanswered { is_timeout: true };
            let failure = Failure { reached, ..Failure::new(FailureKind::Transient, "late") };
            self.world.fail(&job, &lease, &failure).await;
        } else {
            self.world.complete(&job, &lease).await;
        }
    }

    /// The invariants, after every step.
    pub(super) async fn check(&self, so_far: &[Actor]) {
        let now = self.look().await;
        assert!(now.waiting <= 1, "{now:?} after {so_far:?}");
        if now.is_settled() {
            assert_eq!(self.on_zooid, now.generation, "in step, but zooid differs: {so_far:?}");
            assert_eq!(self.late, None, "in step for good, but a call may land: {so_far:?}");
        }
    }

    async fn look(&self) -> Look {
        sqlx::query_as(
            "select generation, synced, confirm_at is not null as is_open, lease_job is not null as is_leased,
                    (select count(*) from apalis.jobs where idempotency_key is not null) as waiting
             from relay",
        )
        .fetch_one(&self.world.db)
        .await
        .unwrap()
    }

    /// A minute passes, whatever is open lands, the dead are buried, and one healthy worker does what is
    /// due.
    pub(super) async fn finish(&mut self, order: &[Actor]) {
        self.world.expire_leases().await;
        self.world.rescue().await;
        self.land();
        let name = self.world.another_worker().await;
        for _ in 0..6 {
            self.world.reconcile().await;
            self.pass_a_minute().await;
            self.workers[1] = Worker { name: name.clone(), ..Worker::default() };
            for _ in 0..3 {
                self.work(1).await;
            }
            let now = self.look().await;
            if now.is_settled() && now.waiting == 0 {
                break;
            }
        }
        let now = self.look().await;
        assert!(now.is_settled() && now.waiting == 0, "{now:?} after {order:?}");
        assert_eq!(self.on_zooid, now.generation, "{order:?}");
        assert_eq!(self.world.reconcile().await, 0, "due again after {order:?}");
    }

    async fn pass_a_minute(&self) {
        sqlx::query(
            "update relay set confirm_at = confirm_at - interval '2 minutes',
                              lease_until = lease_until - interval '2 minutes'",
        )
        .execute(&self.world.db)
        .await
        .unwrap();
    }
}
