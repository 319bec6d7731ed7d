//! The schedule of the lanes while another transaction holds the key of one lane's job: it stops no other lane.

use serde_json::json;
use sqlx::{PgPool, Postgres, Transaction};
use tender_jobs::mirror::{
    lane::LaneKind,
    upstream::{self, Upstream},
};
use tender_workers::mirror::orchestrate::{self, Dispatch};
use tokio::task::JoinHandle;

use crate::support::{eventually, mirror::MirrorWorld};

const MODE: LaneKind = LaneKind::Realtime;

/// Lanes of upstreams, in the order of the schedule. None has a job, except that a transaction holds the key of one.
struct Held {
    world: MirrorWorld,
    upstreams: Vec<Upstream>,
    holder: Transaction<'static, Postgres>,
}

impl Held {
    async fn new(number: u16, held: usize) -> Self {
        let world = MirrorWorld::new().await;
        for number in 1..=number {
            world.upstream(&format!("ws://127.0.0.1:{number}"), json!({})).await;
        }
        orchestrate::dispatch(&world.db, MODE, None, false).await.unwrap();
        let upstreams = upstream::list(&world.db).await.unwrap();
        let lane = world.lane(&upstreams[held], MODE).await.id;
        let mut holder = tender_jobs::database::begin(&world.db).await.unwrap();
        for (part, db) in [("=", &mut *holder), ("<>", &mut *world.db.acquire().await.unwrap())] {
            let delete =
                format!("delete from apalis.jobs where idempotency_key {part} 'lane:{lane}'");
            sqlx::query(sqlx::AssertSqlSafe(delete)).execute(db).await.unwrap();
        }
        Self { world, upstreams, holder }
    }

    /// Connections that wait for a lock for so long; zero: for ever.
    async fn waiting(&self, lock_timeout: &str) -> PgPool {
        let options = (*self.world.db.connect_options()).clone();
        let options = options.options([("lock_timeout", lock_timeout)]);
        PgPool::connect_with(options).await.unwrap()
    }

    /// Begins a schedule that waits for the held key until the transaction ends.
    async fn dispatch(&self) -> JoinHandle<Vec<Dispatch>> {
        let db = self.waiting("0").await;
        let dispatched =
            async move { orchestrate::dispatch(&db, MODE, None, false).await.unwrap() };
        tokio::spawn(dispatched)
    }

    /// Waits until others see the jobs of lanes.
    async fn have_jobs(&self, lanes: i64) {
        eventually("the lanes have jobs", async || {
            // The held job is one of them for all others.
            let count = "select count(*) from apalis.jobs";
            let jobs: i64 = sqlx::query_scalar(count).fetch_one(&self.world.db).await.unwrap();
            jobs == lanes + 1
        })
        .await;
    }
}

#[tokio::test]
async fn a_lane_that_cannot_be_scheduled_does_not_stop_the_others() {
    let held = Held::new(3, 1).await;
    let db = held.waiting("100ms").await;
    let dispatched = orchestrate::dispatch(&db, MODE, None, false).await.unwrap();
    let failed: Vec<bool> = dispatched.iter().map(Dispatch::is_failed).collect();
    assert_eq!(failed, [false, true, false], "{dispatched:?}");
    held.have_jobs(2).await;
}

#[tokio::test]
async fn the_keys_of_other_lanes_are_not_held_during_a_long_wait() {
    let held = Held::new(3, 1).await;
    let dispatched = held.dispatch().await;
    held.have_jobs(1).await;
    held.holder.rollback().await.unwrap();
    let skipped: Vec<_> = dispatched.await.unwrap().iter().map(|one| one.skipped).collect();
    assert_eq!(skipped, [None, Some("already waiting"), None]);
}

/// The lane of the last upstream fails while the jobs of those before it are enqueued.
#[tokio::test]
async fn a_lane_that_fails_during_a_long_schedule_rests() {
    let held = Held::new(501, 1).await;
    let dispatched = held.dispatch().await;
    held.have_jobs(1).await;
    let fails = "update lane set status = 'error', error_message = 'rate-limited',
                        retry_at = now() + interval '1 hour' where upstream_id = $1";
    let last = held.upstreams.last().unwrap();
    sqlx::query(fails).bind(last.id).execute(&held.world.db).await.unwrap();
    held.holder.rollback().await.unwrap();
    let dispatched = dispatched.await.unwrap();
    assert_eq!(dispatched[499].skipped, None);
    assert_eq!(dispatched[500].skipped, Some("resting after an error"));
}
