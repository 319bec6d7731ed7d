//! Sessions of followed relays, against real and scripted relays.

mod covers;
mod follow;
mod others;
mod packing;
mod reconnect;
mod refusal;
mod rules;
mod windows;

use nostr::{event::Event, key::Keys};
use serde_json::Value;
use sqlx::PgPool;
use tender_jobs::{
    grasp::{
        admission::OwnFeed,
        service::{self, NewService},
    },
    mirror::event::{self, Batch, Limits},
};
use tender_workers::{
    grasp,
    runtime::{self, Wing},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{
    TestDatabase, eventually, install_tls, mirror::settings, patiently, relays::event,
};

/// A process that follows relays. It stops when [`stop`](Self::stop) is called, or is killed.
struct Process {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Process {
    /// Starts a process without recurring jobs.
    fn start(db: &PgPool) -> Self {
        Self::with(db, |_| {})
    }

    fn with(db: &PgPool, tune: impl FnOnce(&mut grasp::Context) + Send + 'static) -> Self {
        let (stop, db) = (CancellationToken::new(), db.clone());
        let of_task = stop.clone();
        let task = tokio::spawn(async move {
            let mirror = tender_workers::mirror::Context::new(&db, settings(), "test", &of_task);
            let mut context = grasp::Context::new(&mirror);
            tune(&mut context);
            let wings: Vec<Wing> = vec![grasp::wing(&context)];
            let how =
                runtime::Settings { process: "test".to_owned(), ..runtime::Settings::default() };
            runtime::run(&db, how, wings, of_task).await.unwrap();
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        patiently("the process stops", self.task).await.unwrap();
    }
}

/// A service with one repository, which names no other relay.
struct World {
    _database: TestDatabase,
    db: PgPool,
    service: Uuid,
    keys: Keys,
    /// The address of the repository.
    address: String,
    /// What was stored before anything was followed.
    before: Vec<String>,
}

impl World {
    async fn new() -> Self {
        install_tls();
        let database = TestDatabase::new().await;
        let (db, keys) = (database.pool.clone(), Keys::generate());
        let new = NewService { url: "wss://git.test".to_owned(), ..NewService::default() };
        let service = service::create(&db, &new).await.unwrap().id;
        let address = format!("30617:{}:repo", keys.public_key());
        let before = Vec::new();
        let mut world = Self { _database: database, db, service, keys, address, before };
        let tags = vec![
            vec!["d", "repo"],
            vec!["clone", "https://git.test/repo.git"],
            vec!["relays", "wss://git.test"],
        ];
        world.accept(&event(&world.keys, 30617, now() - 9000, "", tags)).await;
        world.before = world.stored().await;
        assert_eq!(world.before.len(), 1);
        world
    }

    /// Stores an event as the service's own relay sends it.
    async fn accept(&self, event: &Event) {
        let limits = Limits { bytes: 1_000_000, tags: 1000 };
        let events = [event::parse(&serde_json::to_string(event).unwrap(), limits).unwrap()];
        let batch = Batch { gate: Some(&OwnFeed), ..Batch::new(self.service, &events) };
        event::store(&self.db, batch).await.unwrap();
    }

    /// The items of the repository.
    fn items(&self) -> [(&str, &str); 3] {
        [("announcements", "*"), ("state", "repo"), ("address", &self.address)]
    }

    fn issue(&self, at: i64, text: &str) -> Event {
        event(&self.keys, 1621, at, text, vec![vec!["a", &self.address]])
    }

    fn issues(&self, count: usize) -> Vec<Event> {
        let at = |index: usize| now() - 3600 - i64::try_from(index).unwrap();
        (0..count).map(|index| self.issue(at(index), &format!("issue {index}"))).collect()
    }

    /// What was stored since the beginning.
    async fn fetched(&self) -> Vec<String> {
        let mut stored = self.stored().await;
        stored.retain(|id| !self.before.contains(id));
        stored
    }

    async fn relay(&self, url: &str, items: &[(&str, &str)]) -> Uuid {
        let add = "insert into grasp_relay (url) values ($1) returning id";
        let id: Uuid = sqlx::query_scalar(add).bind(url).fetch_one(&self.db).await.unwrap();
        self.want(id, items).await;
        id
    }

    /// Wants items from a relay, as the acceptance of an announcement does.
    async fn want(&self, relay: Uuid, items: &[(&str, &str)]) {
        let mut tx = tender_jobs::database::begin(&self.db).await.unwrap();
        for (family, item) in items {
            let sql = "insert into grasp_coverage (relay_id, family, item) values ($1, $2, $3)";
            sqlx::query(sql).bind(relay).bind(family).bind(item).execute(&mut *tx).await.unwrap();
        }
        let sql =
            "insert into grasp_outbox (relay_id, due_at) values ($1, now()) on conflict do nothing";
        sqlx::query(sql).bind(relay).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.db).await.unwrap()
    }

    async fn text(&self, sql: &'static str) -> String {
        sqlx::query_scalar::<_, Option<String>>(sql)
            .fetch_one(&self.db)
            .await
            .unwrap()
            .unwrap_or_default()
    }

    async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.db).await.unwrap();
    }

    /// Waits until a query returns this text.
    async fn reads(&self, sql: &'static str, wanted: &str) {
        eventually(&format!("{wanted}: {sql}"), async || self.text(sql).await == wanted).await;
    }

    async fn in_step(&self) {
        self.reads("select string_agg(distinct status, ',') from grasp_relay", "in_step").await;
    }

    async fn all_confirmed(&self) {
        self.reads("select string_agg(distinct state, ',') from grasp_coverage", "confirmed").await;
    }

    async fn stored(&self) -> Vec<String> {
        let rows: Vec<(Vec<u8>,)> =
            sqlx::query_as("select id from event order by id").fetch_all(&self.db).await.unwrap();
        rows.iter().map(|(id,)| hex::encode(id)).collect()
    }

    async fn has(&self, event: &Event) {
        let id = event.id.to_hex();
        eventually("the event is stored", async || self.stored().await.contains(&id)).await;
    }
}

fn now() -> i64 {
    i64::try_from(nostr::types::Timestamp::now().as_secs()).unwrap()
}

/// The REQs that a relay was told, without live subscriptions.
fn history(heard: &[Value]) -> Vec<&Value> {
    heard.iter().filter(|m| m[0] == "REQ" && m[2]["until"].is_i64()).collect()
}

fn live(heard: &[Value]) -> Vec<&Value> {
    heard.iter().filter(|m| m[0] == "REQ" && m[2]["until"].is_null()).collect()
}
