//! The world of GRASP: a service with its own relay, and followed relays, with the real wiring.

use std::{collections::BTreeSet, time::Duration};

use nostr::{event::Event, key::Keys};
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    grasp::service::{self, NewService, Service},
    mirror::deployment,
};
use tender_workers::{
    Wings,
    mirror::{Profile, Settings},
    runtime,
};
use tokio_util::sync::CancellationToken;

use super::{
    eventually, install_tls,
    mirror::MirrorWorld,
    relays::{RealRelay, event},
    retention,
};

pub const ANNOUNCEMENT: u16 = 30617;
pub const STATE: u16 = 30618;
pub const PATCH: u16 = 1617;
pub const PULL_REQUEST: u16 = 1618;
pub const ISSUE: u16 = 1621;
pub const COMMENT: u16 = 1111;

/// A ledger, the relay of a service, and the key of a repository's author.
pub struct GraspWorld {
    pub mirror: MirrorWorld,
    pub db: PgPool,
    pub own: RealRelay,
    pub keys: Keys,
    /// The second at which the events of the test begin: an hour ago.
    pub at: i64,
}

/// The workers of a process; they stop when this is dropped.
pub struct Running {
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Running {
    /// Stops the workers, and waits for their end.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            super::patiently("the workers end", task).await.unwrap();
        }
    }
}

impl GraspWorld {
    pub async fn new() -> Self {
        install_tls();
        let mirror = MirrorWorld::new().await;
        let db = mirror.db.clone();
        let at = mirror.db_now().await - 3600;
        Self { mirror, db, own: RealRelay::start().await, keys: Keys::generate(), at }
    }

    /// The host by which announcements mean the service.
    pub fn host(&self) -> &str {
        host_of(&self.own.url)
    }

    /// Makes the own relay a service that starts from these relays.
    pub async fn serve(&self, bootstrap: &[&str]) -> Service {
        let new = NewService {
            url: self.own.url.clone(),
            bootstrap: bootstrap.iter().map(|url| (*url).to_owned()).collect(),
            private: true,
            ..NewService::default()
        };
        service::create(&self.db, &new).await.unwrap()
    }

    /// Runs the mirror and GRASP as a process does.
    pub fn run(&self) -> Running {
        self.run_as("test")
    }

    pub fn run_as(&self, process: &str) -> Running {
        let stop = CancellationToken::new();
        let settings =
            Settings { profile: Profile::Production, allow_private: true, ..Settings::default() };
        let wings = Wings {
            provision: None,
            mirror: Some(settings),
            retention: retention(),
            history: Duration::from_hours(24 * 365),
        };
        let how = runtime::Settings { process: process.to_owned(), ..runtime::Settings::default() };
        let (db, stopping) = (self.db.clone(), stop.clone());
        let task = tokio::spawn(async move {
            tender_workers::run(&db, how, wings, stopping).await.unwrap();
        });
        Running { stop, task: Some(task) }
    }

    /// An announcement of a repository of this world's author, which names the service and these
    /// relays.
    pub fn announcement(&self, identifier: &str, relays: &[&str], at: i64) -> Event {
        announcement(&self.keys, identifier, &[self.own.url.as_str()], relays, at)
    }

    /// The address of a repository of this world's author.
    pub fn address(&self, identifier: &str) -> String {
        format!("{ANNOUNCEMENT}:{}:{identifier}", self.keys.public_key().to_hex())
    }

    /// An event of another author, with these tags.
    #[expect(clippy::unused_self, reason = "an event of this world, like the others")]
    pub fn other(&self, kind: u16, at: i64, content: &str, tags: &[&[&str]]) -> Event {
        let tags = tags.iter().map(|tag| tag.to_vec()).collect();
        event(&Keys::generate(), kind, at, content, tags)
    }

    /// An issue of another author.
    pub fn issue(&self, identifier: &str, at: i64, content: &str) -> Event {
        self.other(ISSUE, at, content, &[&["a", &self.address(identifier)]])
    }

    /// Waits until the service's relay holds all of these events.
    pub async fn arrives(&self, what: &str, events: &[&Event]) {
        let wanted: BTreeSet<String> = events.iter().map(|event| event.id.to_hex()).collect();
        eventually(what, async || {
            let there: BTreeSet<String> = self.own.ids().await.into_iter().collect();
            wanted.is_subset(&there)
        })
        .await;
    }

    /// Waits until every item of every followed relay is confirmed, and at least one is.
    pub async fn is_covered(&self) {
        eventually("everything wanted is confirmed", async || {
            let (open, confirmed): (i64, i64) = sqlx::query_as(
                "select count(*) filter (where state <> 'confirmed'),
                        count(*) filter (where state = 'confirmed') from grasp_coverage",
            )
            .fetch_one(&self.db)
            .await
            .unwrap();
            open == 0 && confirmed > 0
        })
        .await;
    }

    /// The ids of accepted events.
    pub async fn accepted(&self) -> BTreeSet<String> {
        let ids: Vec<Vec<u8>> =
            sqlx::query_scalar("select event_id from admission").fetch_all(&self.db).await.unwrap();
        ids.iter().map(hex::encode).collect()
    }

    /// The state of a followed relay; `None` if it is not followed.
    pub async fn status(&self, url: &str) -> Option<String> {
        sqlx::query_scalar("select status from grasp_relay where url = $1")
            .bind(url)
            .fetch_optional(&self.db)
            .await
            .unwrap()
    }

    pub async fn is_in_step(&self, url: &str) {
        eventually("the followed relay is in step", async || {
            self.status(url).await.as_deref() == Some("in_step")
        })
        .await;
    }

    /// Makes the next attempts to connect due.
    pub async fn make_attempts_due(&self) {
        self.sql("update grasp_relay set next_attempt_at = now()").await;
    }

    /// Makes the attempts of missing items and the plans due.
    pub async fn make_items_due(&self) {
        self.sql("update grasp_coverage set retry_at = now() where state = 'missing'").await;
        self.sql(
            "insert into grasp_outbox (relay_id, due_at)
             select distinct relay_id, now() from grasp_coverage where state = 'missing'
             on conflict (relay_id) do update set due_at = now()",
        )
        .await;
    }

    pub async fn sql(&self, text: &'static str) {
        sqlx::query(text).execute(&self.db).await.unwrap();
    }
}

/// The host of a URL, with its port.
pub fn host_of(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, host)| host)
}

/// An announcement that names the hosts of `services` in `clone` and `relays`, and further relays.
pub fn announcement(
    keys: &Keys,
    identifier: &str,
    services: &[&str],
    relays: &[&str],
    at: i64,
) -> Event {
    let clone_urls: Vec<String> = services
        .iter()
        .map(|url| {
            format!("http://{}/{}/{identifier}.git", host_of(url), keys.public_key().to_hex())
        })
        .collect();
    let mut clone = vec!["clone"];
    clone.extend(clone_urls.iter().map(String::as_str));
    let named = [&["relays"], services, relays].concat();
    event(keys, ANNOUNCEMENT, at, "", vec![vec!["d", identifier], clone, named])
}
