//! An event that is stored while an upload runs is sent at once, whichever of the two commits first:
//! the transaction that stores it, or the one that ends the run.

use std::sync::{Arc, Mutex};

use nostr::{event::Event, key::Keys};
use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::mirror::{UPLOADS, lane::LaneKind, upstream::Upstream};

use crate::support::{
    eventually,
    mirror::MirrorWorld,
    relays::{Client, FakeRelay, ids, note},
};

/// A live upstream whose upload lane has sent an event and is running.
struct Running {
    world: Arc<MirrorWorld>,
    fake: FakeRelay,
    upstream: Upstream,
    /// What the relay holds back: the answer to the first event.
    held: Arc<Mutex<Option<(Client, Value)>>>,
    run: tokio::task::JoinHandle<()>,
    events: Vec<Event>,
}

impl Running {
    /// Begins a run, and waits until its event is on its way.
    async fn new() -> Self {
        let world = Arc::new(MirrorWorld::new().await);
        let (keys, now) = (Keys::generate(), world.db_now().await);
        let events = vec![note(&keys, now - 20, "first"), note(&keys, now - 10, "second")];
        let held: Arc<Mutex<Option<(Client, Value)>>> = Arc::default();
        let answers = held.clone();
        let fake = FakeRelay::start(move |client: Client, message: Value| {
            let ok = json!(["OK", message[1]["id"], true, ""]);
            let is_held = message[1]["content"] == "first";
            if is_held {
                *answers.lock().unwrap() = Some((client.clone(), ok.clone()));
            }
            async move {
                if message[0] == "EVENT" && !is_held {
                    client.send(ok).await;
                }
            }
        })
        .await;
        let upstream = world.upstream(&fake.url, json!({"direction": "up", "live": true})).await;
        world.put(&events[..1]).await;
        world.trigger(&upstream, LaneKind::Upload).await;
        let job = world.fetch_of(UPLOADS).await.expect("the lane's job");
        let run = tokio::spawn(tender_workers::mirror::run(world.context.clone(), job));
        eventually("the first event is on its way", async || held.lock().unwrap().is_some()).await;
        Self { world, fake, upstream, held, run, events }
    }

    /// Stores the second event.
    async fn store(&self) {
        self.world.put(&self.events[1..]).await;
    }

    /// Lets the run come to its end.
    async fn let_end(&self) {
        let (client, ok) = self.held.lock().unwrap().take().expect("an answer is held");
        client.send(ok).await;
    }

    /// Runs what is due now; both events have gone up then.
    async fn both_are_up(self) {
        self.run.await.unwrap();
        self.world.drain().await;
        let sent: Vec<Value> = self.fake.verbs("EVENT");
        let mut sent: Vec<&str> = sent.iter().filter_map(|event| event[1]["id"].as_str()).collect();
        sent.sort_unstable();
        assert_eq!(sent, ids(&self.events));
        let lane = self.world.lane(&self.upstream, LaneKind::Upload).await;
        assert_eq!((lane.uploaded, lane.status.as_str()), (2, "idle"));
    }
}

/// Waits until a transaction of this database waits for a lock of this type.
async fn someone_waits(db: &PgPool, lock: &str) {
    eventually("a transaction waits for the lock", async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and wait_event = $1",
        )
        .bind(lock)
        .fetch_one(db)
        .await
        .unwrap();
        waiting == 1
    })
    .await;
}

#[tokio::test]
async fn an_event_that_is_committed_while_the_upload_runs_is_sent_at_once() {
    let running = Running::new().await;
    running.store().await;
    running.let_end().await;
    running.both_are_up().await;
}

#[tokio::test]
async fn an_event_that_is_committed_after_the_run_ended_is_sent_at_once() {
    let mut running = Running::new().await;
    running.let_end().await;
    (&mut running.run).await.unwrap();
    running.run = tokio::spawn(async {});
    running.store().await;
    running.both_are_up().await;
}

#[tokio::test]
async fn the_end_of_a_run_waits_for_an_event_that_is_being_stored() {
    let running = Running::new().await;
    // A storing transaction writes the statistics last: it stops there, before its commit.
    let mut held = tender_jobs::database::begin(&running.world.db).await.unwrap();
    let lock = "lock table ingest_minute in access exclusive mode";
    sqlx::query(lock).execute(&mut *held).await.unwrap();
    let (world, second) = (running.world.clone(), running.events[1..].to_vec());
    let storing = tokio::spawn(async move { world.put(&second).await });
    someone_waits(&running.world.db, "relation").await;
    running.let_end().await;
    someone_waits(&running.world.db, "advisory").await;
    assert!(!running.run.is_finished(), "the run looks again after the commit");
    held.commit().await.unwrap();
    storing.await.unwrap();
    running.both_are_up().await;
}

#[tokio::test]
async fn an_event_that_is_stored_while_a_run_ends_waits_for_that_end() {
    let running = Running::new().await;
    // The settling transaction has looked for work, and stops at the row of its job.
    let mut held = tender_jobs::database::begin(&running.world.db).await.unwrap();
    let lock = "select id from apalis.jobs where job_type = $1 for update";
    sqlx::query(lock).bind(UPLOADS).execute(&mut *held).await.unwrap();
    running.let_end().await;
    someone_waits(&running.world.db, "transactionid").await;
    let (world, second) = (running.world.clone(), running.events[1..].to_vec());
    let storing = tokio::spawn(async move { world.put(&second).await });
    someone_waits(&running.world.db, "advisory").await;
    held.commit().await.unwrap();
    storing.await.unwrap();
    running.both_are_up().await;
}
