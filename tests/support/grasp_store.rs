//! GRASP without connections: a service, a followed relay whose lease the test holds, and events that come
//! from either.

use std::collections::{BTreeMap, BTreeSet};

use nostr::{event::Event, key::Keys};
use serde_json::json;
use tender_jobs::{
    grasp::{
        admission::{Followed, OwnFeed},
        family::{Purpose, Source},
        parked,
        service::{self, NewService, Service},
        wanted,
    },
    mirror::event::{self, Batch, EventId, Gate, Limits, Stored},
    queue::Settled,
};
use uuid::Uuid;

use super::{mirror::MirrorWorld, relays::event as make};

/// The service of the tests.
pub const SERVICE: &str = "wss://git.example.com";
/// The time of the tests' events.
pub const AT: i64 = 1_700_000_000;

pub struct GraspStore {
    pub world: MirrorWorld,
    pub service: Service,
    relay: Uuid,
    upstream: Uuid,
}

/// An item of coverage: URL of the relay, family, item.
pub type Items = BTreeSet<(String, String, String)>;

pub fn new_service(url: &str) -> NewService {
    NewService { url: url.to_owned(), ..NewService::default() }
}

pub fn parsed(event: &Event) -> event::Event {
    let limits = Limits { bytes: 1_000_000, tags: 2000 };
    event::parse(&serde_json::to_string(event).unwrap(), limits).unwrap()
}

pub fn id_of(event: &Event) -> EventId {
    EventId(event.id.to_bytes())
}

impl GraspStore {
    pub async fn new() -> Self {
        let world = MirrorWorld::new().await;
        let service = service::create(&world.db, &new_service(SERVICE)).await.unwrap();
        Self::over(world, service).await
    }

    pub async fn over(world: MirrorWorld, service: Service) -> Self {
        let upstream = world.upstream("wss://followed.test", json!({"enabled": false})).await.id;
        let relay = sqlx::query_scalar(
            "insert into grasp_relay (url, upstream_id, status, lease_owner, lease_until, lease_epoch, reconciled_at)
             values ('wss://followed.test', $1, 'in_step', 'test', now() + interval '1 day', 1, now())
             returning id",
        )
        .bind(upstream)
        .fetch_one(&world.db)
        .await
        .unwrap();
        Self { world, service, relay, upstream }
    }

    pub fn followed(&self) -> Followed {
        Followed { relay: self.relay, epoch: 1, source: Source::Batch(Purpose::Missing) }
    }

    /// Stores events as the followed relay sends them.
    pub async fn deliver(&self, events: &[Event]) -> Vec<Stored> {
        match self.through(&self.followed(), self.upstream, events).await {
            Settled::Written(stored) => stored,
            Settled::LeaseLost => panic!("the lease is lost"),
        }
    }

    /// Stores events as the service's own relay sends them.
    pub async fn own(&self, events: &[Event]) -> Vec<Stored> {
        match self.through(&OwnFeed, self.service.id, events).await {
            Settled::Written(stored) => stored,
            Settled::LeaseLost => panic!("the own feed has no lease"),
        }
    }

    pub async fn through(
        &self,
        gate: &dyn Gate,
        upstream: Uuid,
        events: &[Event],
    ) -> Settled<Vec<Stored>> {
        let events: Vec<_> = events.iter().map(parsed).collect();
        let batch = Batch { gate: Some(gate), ..Batch::new(upstream, &events) };
        event::store(&self.world.db, batch).await.unwrap()
    }

    /// Judges released events until there are none.
    pub async fn release(&self) {
        for _ in 0..1000 {
            if parked::released(&self.world.db, self.service.id).await.unwrap().is_none() {
                return;
            }
        }
        panic!("no end of released events");
    }

    /// Judges the events of the store, and what that releases.
    pub async fn scan(&self) {
        for _ in 0..1000 {
            if !service::scan_page(&self.world.db, self.service.id).await.unwrap().more {
                return self.release().await;
            }
            self.release().await;
        }
        panic!("no end of the scan");
    }

    pub async fn admitted_to(&self, service: Uuid) -> BTreeMap<String, String> {
        let rows: Vec<(Vec<u8>, String)> =
            sqlx::query_as("select event_id, rule from admission where upstream_id = $1")
                .bind(service)
                .fetch_all(&self.world.db)
                .await
                .unwrap();
        rows.into_iter().map(|(id, rule)| (hex::encode(id), rule)).collect()
    }

    /// The ids of accepted events, with their rules.
    pub async fn admitted(&self) -> BTreeMap<String, String> {
        self.admitted_to(self.service.id).await
    }

    /// The rule that admitted an event.
    pub async fn rule(&self, event: &Event) -> Option<String> {
        self.admitted().await.remove(&event.id.to_hex())
    }

    /// The ids of parked events, with their reasons.
    pub async fn parked(&self) -> BTreeMap<String, String> {
        let rows: Vec<(Vec<u8>, String)> =
            sqlx::query_as("select event_id, reason from parked where upstream_id = $1")
                .bind(self.service.id)
                .fetch_all(&self.world.db)
                .await
                .unwrap();
        rows.into_iter().map(|(id, reason)| (hex::encode(id), reason)).collect()
    }

    /// Why an event is parked.
    pub async fn reason(&self, event: &Event) -> Option<String> {
        self.parked().await.remove(&event.id.to_hex())
    }

    pub async fn coverage(&self) -> Items {
        let rows: Vec<(String, String, String)> = sqlx::query_as(
            "select r.url, c.family, c.item from grasp_coverage c join grasp_relay r on r.id = c.relay_id",
        )
        .fetch_all(&self.world.db)
        .await
        .unwrap();
        rows.into_iter().collect()
    }

    /// The URLs of relays that are wanted.
    pub async fn wanted(&self) -> BTreeSet<String> {
        let rows: Vec<String> = sqlx::query_scalar(
            "select url from grasp_relay where unwanted_since is null and url <> 'wss://followed.test'",
        )
        .fetch_all(&self.world.db)
        .await
        .unwrap();
        rows.into_iter().collect()
    }

    /// Asserts that the coverage is what a comparison with all wanted would make it.
    pub async fn assert_settled(&self) {
        let before = self.coverage().await;
        wanted::reconcile_all(&self.world.db).await.unwrap();
        assert_eq!(before, self.coverage().await);
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.world.db).await.unwrap()
    }

    pub async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.world.db).await.unwrap();
    }
}

/// The address of a repository.
pub fn address(keys: &Keys, identifier: &str) -> String {
    format!("30617:{}:{identifier}", keys.public_key().to_hex())
}

/// An announcement that names the service, and other relays.
pub fn announcement(keys: &Keys, at: i64, identifier: &str, relays: &[&str]) -> Event {
    let relays: Vec<&str> = [&["relays", SERVICE], relays].concat();
    let clone = vec!["clone", "https://git.example.com/npub/x.git"];
    make(keys, 30617, at, "", vec![vec!["d", identifier], clone, relays])
}

/// An announcement that does not name the service.
pub fn elsewhere(keys: &Keys, at: i64, identifier: &str) -> Event {
    let clone = vec!["clone", "https://other.test/npub/x.git"];
    let relays = vec!["relays", "wss://other.test"];
    make(keys, 30617, at, "elsewhere", vec![vec!["d", identifier], clone, relays])
}

/// An issue of a repository.
pub fn issue(keys: &Keys, at: i64, address: &str) -> Event {
    make(keys, 1621, at, "issue", vec![vec!["a", address]])
}

/// A comment on an event.
pub fn comment(keys: &Keys, at: i64, on: &Event) -> Event {
    make(keys, 1111, at, "comment", vec![vec!["E", &on.id.to_hex()]])
}
