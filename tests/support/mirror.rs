//! The mirror's world: upstreams, and jobs that run one by one. No zooid.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    mirror::{
        self, deployment,
        event::{self, Batch, Limits},
        lane::{self, LaneKind, LaneState},
        upstream::{self, Change, Upstream},
    },
    queue::{self, Job, JobDetail},
};
use tender_workers::{
    mirror::{
        Context, Profile, Settings,
        orchestrate::{self, Dispatch},
    },
    runtime,
};
use tokio_util::sync::CancellationToken;

use super::{TestDatabase, install_tls, retention};

/// The order in which due jobs run.
const QUEUES: [&str; 4] = [mirror::MIRROR, mirror::UPLOADS, mirror::EVENTS, mirror::DELETIONS];

/// What a worker of the mirror would have, over some ledger.
pub struct Mirror {
    pub db: PgPool,
    pub context: Context,
}

/// A ledger of its own, and a mirror over it.
pub struct MirrorWorld {
    mirror: Mirror,
    pub database: TestDatabase,
}

impl std::ops::Deref for MirrorWorld {
    type Target = Mirror;

    fn deref(&self) -> &Mirror {
        &self.mirror
    }
}

/// Settings without recurring jobs. The relays of the tests are on this machine.
pub fn settings() -> Settings {
    Settings { profile: Profile::Off, allow_private: true, ..Settings::default() }
}

pub fn upstream_change(url: &str, fields: Value) -> Change {
    let mut change: Change = serde_json::from_value(fields).unwrap();
    change.url = Some(url.to_owned());
    change
}

impl MirrorWorld {
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Self {
        install_tls();
        let database = TestDatabase::new().await;
        let is_changed = settings.defaults != upstream::settings::Settings::default();
        let config = is_changed.then(|| settings.defaults.to_json());
        let environment = deployment::Environment { config, profile: None };
        deployment::import(&database.pool, &environment).await.unwrap();
        Self { mirror: Mirror::over(&database.pool, settings), database }
    }
}

impl super::World {
    /// A mirror over the same ledger.
    pub fn mirror(&self) -> Mirror {
        Mirror::over(&self.db, settings())
    }
}

impl Mirror {
    pub fn over(db: &PgPool, settings: Settings) -> Self {
        let context = Context::new(db, settings, "test", &CancellationToken::new());
        Self { db: db.clone(), context }
    }

    /// Runs workers of the mirror alone, until `stop`.
    pub async fn run_workers(&self, stop: CancellationToken) {
        let settings = (*self.context.settings).clone();
        let context = Context::new(&self.db, settings, "test", &stop);
        let wings = vec![
            tender_workers::mirror::wing(&context),
            tender_workers::upkeep::wing(
                &self.db,
                retention(),
                std::time::Duration::from_hours(24 * 365),
            ),
        ];
        let how = runtime::Settings { process: "test".to_owned(), ..runtime::Settings::default() };
        runtime::run(&self.db, how, wings, stop).await.unwrap();
    }

    pub async fn upstream(&self, url: &str, fields: Value) -> Upstream {
        upstream::create(&self.db, &upstream_change(url, fields)).await.unwrap()
    }

    pub async fn change_upstream(&self, upstream: &Upstream, fields: Value) -> Upstream {
        let change = serde_json::from_value(fields).unwrap();
        upstream::update(&self.db, upstream.id, &change).await.unwrap()
    }

    /// Triggers a mode of one upstream, by hand.
    pub async fn trigger(&self, upstream: &Upstream, mode: LaneKind) -> Dispatch {
        let dispatched = orchestrate::dispatch(&self.db, mode, Some(upstream.id), true);
        dispatched.await.unwrap().remove(0)
    }

    /// The due job of a queue, fetched by a worker of its own.
    pub async fn fetch_of(&self, queue: &str) -> Option<Job> {
        let worker = format!("{queue}-{}", uuid::Uuid::new_v4());
        queue::register(&self.db, &worker, queue, "test").await.unwrap();
        queue::fetch(&self.db, &worker, queue, 1).await.unwrap().pop()
    }

    /// Runs one due job; false when there is none.
    pub async fn step(&self) -> bool {
        for queue in QUEUES {
            if let Some(job) = self.fetch_of(queue).await {
                tender_workers::mirror::run(self.context.clone(), job).await;
                return true;
            }
        }
        false
    }

    /// Runs what is due until nothing is; how many jobs.
    pub async fn drain(&self) -> usize {
        let mut jobs = 0;
        while self.step().await {
            jobs += 1;
            assert!(jobs < 5000, "no end of jobs");
        }
        jobs
    }

    /// Triggers a mode and runs it to its end.
    pub async fn mirror(&self, upstream: &Upstream, mode: LaneKind) -> LaneState {
        let dispatched = self.trigger(upstream, mode).await;
        assert_eq!(dispatched.skipped, None);
        self.drain().await;
        self.lane(upstream, mode).await
    }

    pub async fn lane(&self, upstream: &Upstream, kind: LaneKind) -> LaneState {
        let lanes = lane::states_of(&self.db, upstream.id, 600).await.unwrap();
        lanes.into_iter().find(|lane| lane.lane == kind).expect("the lane is there")
    }

    /// Stores events of our own, from an upstream that is no part of the test.
    pub async fn put(&self, events: &[nostr::event::Event]) {
        let own = match upstream::find_named(&self.db, "ws://own.test").await.unwrap() {
            Some(own) => own,
            None => self.upstream("ws://own.test", json!({ "enabled": false })).await,
        };
        let limits = Limits { bytes: 1_000_000, tags: 1000 };
        let parse = |event| event::parse(&serde_json::to_string(event).unwrap(), limits).unwrap();
        let parsed: Vec<_> = events.iter().map(parse).collect();
        event::store(&self.db, Batch::new(own.id, &parsed)).await.unwrap();
    }

    /// Makes every waiting upload due.
    pub async fn make_uploads_due(&self) {
        sqlx::query("update upload_verdict set next_try = now() where verdict = 'pending'")
            .execute(&self.db)
            .await
            .unwrap();
    }

    /// Ids of live events, sorted.
    pub async fn stored(&self) -> Vec<String> {
        let rows: Vec<(Vec<u8>,)> =
            sqlx::query_as("select id from event where deleted_at is null order by id")
                .fetch_all(&self.db)
                .await
                .unwrap();
        rows.iter().map(|(id,)| hex::encode(id)).collect()
    }

    /// Lets the lanes' holders be silent for so long.
    pub async fn silence_lanes(&self, by: Duration) {
        sqlx::query("update lane set heartbeat_at = heartbeat_at - make_interval(secs => $1)")
            .bind(by.as_secs_f64())
            .execute(&self.db)
            .await
            .unwrap();
    }

    /// Moves every waiting job to where it is due.
    pub async fn make_due(&self) {
        sqlx::query("update apalis.jobs set run_at = now() - interval '1 s' where status in ('Pending', 'Failed')")
            .execute(&self.db)
            .await
            .unwrap();
    }

    pub async fn job_by_id(&self, id: &str) -> JobDetail {
        queue::job(&self.db, id).await.unwrap().expect("the job is there")
    }

    pub async fn db_now(&self) -> i64 {
        queue::now(&self.db).await.unwrap().timestamp()
    }

    /// How often events were rejected, by why.
    pub async fn rejections(&self) -> Vec<(String, i64)> {
        sqlx::query_as("select reason, sum(events)::bigint from rejection group by 1 order by 1")
            .fetch_all(&self.db)
            .await
            .unwrap()
    }
}

/// A short history, so that a test needs few windows.
pub fn days(days: i64) -> Value {
    json!({ "backfill_since_hours": 24 * days, "negentropy_chunk_hours": 24, "polling_chunk_hours": 24 })
}
