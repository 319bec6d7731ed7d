//! What the tests share: a database per test, the stand-in for zooid, builders that default
//! everything but what a test is about.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::doc_markdown,
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "test support, used in parts by each binary"
)]

pub mod api;
pub mod database;
pub mod grasp;
pub mod grasp_rows;
pub mod grasp_store;
pub mod line;
pub mod mirror;
pub mod path;
pub mod process;
pub mod proxy;
pub mod relays;
pub mod schedule;
pub mod scripted;
pub mod server;
pub mod statements;
pub mod terminal;
pub mod time;

use std::{collections::HashMap, sync::Arc, time::Duration};

use nostr::key::Keys;
use sqlx::PgPool;
use tender::demo::zooid::ZooidStandIn;
use tender_jobs::{
    console::operator::Begun,
    provision::{
        self, Attempt, BreakerPolicy, Claim, ClaimRequest, Completed, Completion, Failure, Lease,
        Rules, Verdict,
        backoff::Backoff,
        relay::{self, By, Change, NewRelay, Relay, RelayId},
    },
    queue::{self, Job, JobDetail, JobFilter, Retention, Settled},
};
use tender_workers::{
    provision::{
        Context, Settings,
        sync_relay::{self, Outcome},
        zooid::{Zooid, ZooidSettings},
    },
    runtime::{self, Listen},
};
use tokio_util::sync::CancellationToken;

pub use database::TestDatabase;
pub use time::{Bracket, PATIENCE, eventually, patiently, within};

/// The zooid domain of every relay in a test.
pub const DOMAIN: &str = "zooid.test";
/// The longest duration of a request to zooid. A busy machine has time to answer, and the 30 s of a lease
/// leave time before a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// A ledger, a stand-in for zooid, and what a worker would have.
pub struct World {
    pub db: PgPool,
    pub zooid: ZooidStandIn,
    pub context: Context,
    /// A worker's name, registered for `sync-relay`.
    pub worker: String,
    pub database: TestDatabase,
}

pub fn settings() -> Settings {
    let seconds = Duration::from_secs;
    Settings {
        concurrency: 16,
        backoff: Backoff::new(seconds(30), seconds(900), 6, 0.0).unwrap(),
        recreate_missing: true,
        // Never by itself within a test: the first of January.
        reconcile_schedule: "0 0 0 1 1 *".parse().unwrap(),
        exhausted_after: seconds(21_600),
        reassert_within: Duration::ZERO,
        breaker: BreakerPolicy::default(),
        max_in_flight: 32,
        history: Duration::from_hours(24 * 365),
    }
}

/// The usual retention.
pub fn retention() -> Retention {
    let hours = Duration::from_hours;
    Retention { done: hours(24), killed: hours(168) }
}

/// Runs the workers of provisioning alone, until `stop`.
pub async fn run_workers(context: &Context, stop: CancellationToken) {
    run_workers_as(context, runtime::Settings::default(), stop).await;
}

/// As [`run_workers`], with settings of the runtime.
pub async fn run_workers_as(context: &Context, how: runtime::Settings, stop: CancellationToken) {
    let wings = vec![
        tender_workers::provision::wing(context, &stop),
        tender_workers::upkeep::wing(&context.db, retention(), context.settings.history),
    ];
    let how = runtime::Settings { process: "test".to_owned(), ..how };
    runtime::run(&context.db, how, wings, stop).await.unwrap();
}

pub fn zooid_settings(url: &str, robot: Keys) -> ZooidSettings {
    ZooidSettings {
        default_url: url.parse().unwrap(),
        instances: HashMap::new(),
        robot,
        blossom: None,
        livekit: None,
        timeout: REQUEST_TIMEOUT,
    }
}

pub fn by() -> By {
    By { who: "test".to_owned(), trace: Some("trace-1".to_owned()) }
}

/// The record of an action that began.
pub async fn begun(world: &World) -> Begun {
    Begun::new(&world.db, "test", "probe", "jobs").await.unwrap()
}

pub fn change() -> Change {
    Change::default()
}

pub fn install_tls() {
    let _already = rustls::crypto::ring::default_provider().install_default();
}

impl World {
    pub async fn new() -> Self {
        Self::with(settings(), |_| {}).await
    }

    pub async fn with(settings: Settings, tune: impl FnOnce(&mut ZooidSettings)) -> Self {
        install_tls();
        let database = TestDatabase::new().await;
        let robot = Keys::generate();
        let zooid = ZooidStandIn::start(vec![robot.public_key()]).await.unwrap();
        let mut zooid_settings = zooid_settings(&zooid.url(), robot);
        tune(&mut zooid_settings);
        let client = Arc::new(Zooid::new(zooid_settings).unwrap());
        let context = Context::new(&database.pool, client, settings, &Listen::Pool);
        let world =
            Self { db: database.pool.clone(), zooid, context, worker: String::new(), database };
        let worker = world.another_worker().await;
        Self { worker, ..world }
    }

    /// Registers one more worker of `sync-relay`; its name.
    pub async fn another_worker(&self) -> String {
        let name = format!("sync-relay-{}", RelayId::random());
        queue::register(&self.db, &name, provision::SYNC_RELAY, "test").await.unwrap();
        name
    }

    pub async fn relay(&self, subdomain: &str) -> Relay {
        self.relay_with(subdomain, change()).await
    }

    pub async fn relay_with(&self, subdomain: &str, change: Change) -> Relay {
        let change = Change { subdomain: Some(subdomain.to_owned()), ..change };
        let tenant = Keys::generate().public_key().to_hex();
        let new = NewRelay::parse(tenant, &change, DOMAIN, &[DOMAIN.to_owned()]).unwrap();
        relay::create(&self.db, &new, &by()).await.unwrap()
    }

    /// A relay that zooid has.
    pub async fn synced_relay(&self, subdomain: &str) -> Relay {
        let relay = self.relay(subdomain).await;
        assert_eq!(self.attempt().await, Outcome::Synced);
        self.reload(&relay).await
    }

    pub async fn rename(&self, relay: &Relay, name: &str) -> Relay {
        let change = Change { info_name: Some(name.to_owned()), ..change() };
        relay::update(&self.db, &relay.id, &change, &by()).await.unwrap().relay
    }

    pub async fn reload(&self, relay: &Relay) -> Relay {
        relay::find(&self.db, &relay.id).await.unwrap().expect("the relay is there")
    }

    /// Fetches the one job that is due.
    pub async fn fetch(&self) -> Job {
        self.try_fetch().await.expect("a job is due")
    }

    pub async fn try_fetch(&self) -> Option<Job> {
        self.fetch_as(&self.worker).await
    }

    pub async fn fetch_as(&self, worker: &str) -> Option<Job> {
        queue::fetch(&self.db, worker, provision::SYNC_RELAY, 1).await.unwrap().pop()
    }

    /// Fetches the one due job and runs an attempt of it.
    pub async fn attempt(&self) -> Outcome {
        let job = self.fetch().await;
        sync_relay::attempt(&self.context, &job).await
    }

    /// Claims a fetched job.
    pub async fn claim(&self, job: &Job, relay_id: &RelayId) -> Claim {
        let request = ClaimRequest { job: job.clone(), relay_id: relay_id.clone() };
        provision::claim(&self.db, &[request], &self.context.instances).await.unwrap().remove(0)
    }

    /// Settles an attempt as one that reached zooid.
    pub async fn complete(&self, job: &Job, lease: &Lease) -> Completed {
        let attempt = Attempt::default();
        let sent = serde_json::json!({ "host": lease.relay.host() });
        let completion = Completion { job: job.clone(), lease: lease.clone(), attempt, sent };
        let instances = &self.context.instances;
        provision::complete(&self.db, &[completion], instances).await.unwrap().remove(0)
    }

    /// Settles an attempt as failed, on the usual schedule.
    pub async fn fail(&self, job: &Job, lease: &Lease, failure: &Failure) -> Settled<Verdict> {
        let backoff = Backoff::default();
        let (breaker, instances) = (&self.context.settings.breaker, &self.context.instances);
        let rules = Rules { backoff: &backoff, breaker, instances };
        let (id, attempt) = (&lease.relay.id, Attempt::default());
        provision::fail(&self.db, job, id, Some(lease), &attempt, failure, rules).await.unwrap()
    }

    /// Sends a heartbeat of every worker: they are alive, however long the test has taken so far.
    pub async fn beat(&self) {
        sqlx::query("update apalis.workers set last_seen = now()").execute(&self.db).await.unwrap();
    }

    /// Moves every waiting job to where it is due.
    pub async fn make_due(&self) {
        sqlx::query("update apalis.jobs set run_at = now() - interval '1 s' where status in ('Pending', 'Failed')")
            .execute(&self.db)
            .await
            .unwrap();
    }

    /// As [`make_due`](Self::make_due), except for jobs that wait for a confirmation.
    pub async fn make_due_now(&self) {
        sqlx::query(
            "update apalis.jobs set run_at = now() - interval '1 s'
             where status in ('Pending', 'Failed')
               and not exists (select from relay where synced and confirm_at > now())",
        )
        .execute(&self.db)
        .await
        .unwrap();
    }

    /// Lets the instance have this many calls in flight, as after many quick answers.
    pub async fn allow_calls(&self, calls: u32) {
        sqlx::query(
            "insert into zooid_instance (name, calls_allowed) values ($1, $2)
             on conflict (name) do update set calls_allowed = $2",
        )
        .bind(&self.context.instances.default)
        .bind(f64::from(calls))
        .execute(&self.db)
        .await
        .unwrap();
    }

    /// Lets all leases and all heartbeats expire.
    pub async fn expire_leases(&self) {
        for statement in [
            "update relay set lease_until = now() - interval '1 s' where lease_until is not null",
            "update apalis.workers set last_seen = now() - interval '1 hour'",
        ] {
            sqlx::query(statement).execute(&self.db).await.unwrap();
        }
    }

    pub async fn rescue(&self) -> queue::Rescued {
        queue::rescue(&self.db, queue::DEAD_AFTER, runtime::STUCK_AFTER).await.unwrap().0
    }

    pub async fn reconcile(&self) -> usize {
        let rest = self.context.settings.exhausted_after;
        tender_workers::provision::reconcile(&self.db, rest).await.unwrap()
    }

    /// Every job of `sync-relay`, waiting ones first.
    pub async fn jobs(&self) -> Vec<JobDetail> {
        let filter =
            JobFilter { queue: Some(provision::SYNC_RELAY.to_owned()), ..JobFilter::default() };
        let mut jobs = Vec::new();
        for summary in queue::jobs(&self.db, &filter, &queue::Page::First, 10_000).await.unwrap() {
            jobs.push(queue::job(&self.db, &summary.id).await.unwrap().unwrap());
        }
        jobs
    }

    /// The only job of `sync-relay`.
    pub async fn job(&self) -> JobDetail {
        let mut jobs = self.jobs().await;
        assert_eq!(jobs.len(), 1, "{jobs:#?}");
        jobs.remove(0)
    }

    pub async fn job_by_id(&self, id: &str) -> JobDetail {
        queue::job(&self.db, id).await.unwrap().expect("the job is there")
    }

    /// Types of a relay's activity, oldest first.
    pub async fn history(&self, relay: &Relay) -> Vec<&'static str> {
        let records = self.records(relay).await;
        records.iter().map(|record| record.activity_type.as_str()).collect()
    }

    /// A relay's activity, oldest first.
    pub async fn records(&self, relay: &Relay) -> Vec<tender_jobs::provision::activity::Activity> {
        let records =
            tender_jobs::provision::activity::of_relay(&self.db, &relay.id, None, 500).await;
        let mut records = records.unwrap();
        records.reverse();
        records
    }
}
