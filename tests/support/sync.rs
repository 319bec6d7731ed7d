//! What tests of event sync share: upstreams, and jobs run one by one.

use std::time::Duration;

use serde_json::{Value, json};
use tender_jobs::{
    lane::{self, LaneKind, LaneState},
    queue::{self, Job},
    upstream::{self, Change, Upstream},
};
use tender_workers::sync::{
    self,
    orchestrate::{self, Dispatch},
};

use super::World;

/// The queues of event sync.
pub const QUEUES: [&str; 4] = [queue::SYNC, queue::UPLOADS, queue::EVENTS, queue::DELETIONS];

pub fn upstream_change(url: &str, fields: Value) -> Change {
    let mut change: Change = serde_json::from_value(fields).unwrap();
    change.url = Some(url.to_owned());
    change
}

impl World {
    pub async fn upstream(&self, url: &str, fields: Value) -> Upstream {
        upstream::create(&self.db, &upstream_change(url, fields)).await.unwrap()
    }

    pub async fn change_upstream(&self, upstream: &Upstream, fields: Value) -> Upstream {
        let change = serde_json::from_value(fields).unwrap();
        upstream::update(&self.db, upstream.id, &change).await.unwrap()
    }

    /// Triggers a mode of one upstream, by hand.
    pub async fn trigger(&self, upstream: &Upstream, mode: LaneKind) -> Dispatch {
        let settings = &self.context.settings.sync.settings;
        let dispatched = orchestrate::dispatch(&self.db, settings, mode, Some(upstream.id), true);
        dispatched.await.unwrap().remove(0)
    }

    /// The due job of a queue, fetched by a worker of its own.
    pub async fn fetch_of(&self, queue: &str) -> Option<Job> {
        let worker = format!("{queue}-{}", uuid::Uuid::new_v4());
        queue::register(&self.db, &worker, queue, "test").await.unwrap();
        queue::fetch(&self.db, &worker, queue, 1, queue::Depth::All).await.unwrap().pop()
    }

    /// Runs one due job of event sync; false when there is none.
    pub async fn step(&self) -> bool {
        for queue in QUEUES {
            if let Some(job) = self.fetch_of(queue).await {
                sync::run(self.context.clone(), job).await;
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
    pub async fn sync(&self, upstream: &Upstream, mode: LaneKind) -> LaneState {
        let dispatched = self.trigger(upstream, mode).await;
        assert_eq!(dispatched.skipped, None);
        self.drain().await;
        self.lane(upstream, mode).await
    }

    pub async fn lane(&self, upstream: &Upstream, kind: LaneKind) -> LaneState {
        let lanes = lane::states_of(&self.db, upstream.id, 600).await.unwrap();
        lanes.into_iter().find(|lane| lane.lane == kind).expect("the lane is there")
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
