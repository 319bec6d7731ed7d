//! An upgrade as an operator does it: processes of the release before go on beside those of this one,
//! on the database that this one has migrated, under load. `bin/upgrade-test` builds both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

use std::{pin::pin, time::Duration};

use nostr::key::Keys;
use reqwest::Method;
use support::{
    PATIENCE,
    api::{header, strict},
    process::{ROBOT_SECRET, Tender, run},
    server::{Server, free_port},
    within,
};
use tender::demo::zooid::{Fault, ZooidStandIn};
use tokio::time::MissedTickBehavior;

/// The fewest requests of a phase.
const PHASE: usize = 300;
/// The shortest time between two requests.
const PACE: Duration = Duration::from_millis(20);

struct Load {
    http: reqwest::Client,
    keys: Keys,
    apis: Vec<String>,
    made: Vec<String>,
    number: usize,
}

impl Load {
    /// Sends requests until `event` has happened, and at least [`PHASE`].
    async fn during<T>(&mut self, event: impl Future<Output = T>) -> T {
        let (mut event, mut value, mut sent) = (pin!(event), None, 0);
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                happened = &mut event, if value.is_none() => value = Some(happened),
                _ = pace.tick() => {
                    self.request().await;
                    sent += 1;
                }
            }
            value = match value {
                Some(value) if sent >= PHASE => return value,
                value => value,
            };
        }
    }

    /// Creates and changes relays by turns, over every API; every answer must be a success.
    async fn request(&mut self) {
        self.number += 1;
        let api = self.apis[self.number % self.apis.len()].clone();
        if self.number.is_multiple_of(3) {
            let relay = self.made[self.number % self.made.len()].clone();
            let name = format!(r#"{{"info_name": "name {}"}}"#, self.number);
            self.send(Method::PUT, &format!("{api}/relays/{relay}"), name, 200).await;
        } else {
            let body = format!(r#"{{"subdomain": "relay-{}"}}"#, self.number);
            let answer = self.send(Method::POST, &format!("{api}/relays"), body, 201).await;
            self.made.push(answer["data"]["id"].as_str().unwrap().to_owned());
        }
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        body: String,
        expected: u16,
    ) -> serde_json::Value {
        let event = strict(&self.keys, url, method.as_str(), 0);
        let request = self.http.request(method, url).header("authorization", header(&event));
        let answer = request.body(body).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert_eq!(status, expected, "{url}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the test's own variable")]
async fn processes_of_the_release_before_go_on_beside_the_new_ones() {
    support::install_tls();
    let old = std::env::var("TENDER_OLD").expect("bin/upgrade-test sets TENDER_OLD");
    let robot = Keys::parse(ROBOT_SECRET).unwrap().public_key();
    let zooid = ZooidStandIn::start(vec![robot]).await.unwrap();
    zooid.plan(None, Fault::Delay(Duration::from_millis(5)), None);
    let server = Server::start().await;
    let (url, zooid_url) = (server.url(), zooid.url());
    let binds = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let environment = |bind: &'static str| {
        [
            ("DATABASE_URL", url.as_str()),
            ("ZOOID_API_URL", zooid_url.as_str()),
            ("RELAY_DOMAIN", "zooid.test"),
            ("ROBOT_SECRET", ROBOT_SECRET),
            ("API_RATE_LIMIT", "10000"),
            ("API_BIND", bind),
            ("DATABASE_MAX_CONNECTIONS", "16"),
        ]
    };
    let binds: [&'static str; 2] = binds.map(|bind| &*bind.leak());
    let http = reqwest::Client::new();

    let mut old_ones = vec![
        Tender::start_program(&old, &["serve"], &environment(binds[0])),
        Tender::start_program(&old, &["work"], &environment(binds[0])),
    ];
    until_ready(&http, binds[0]).await;
    let apis = vec![format!("http://{}", binds[0])];
    let mut load =
        Load { http: http.clone(), keys: Keys::generate(), apis, made: vec![], number: 0 };
    load.during(async {}).await;

    // Expand: the new release's migrations, while the old one works.
    let only_url = [("DATABASE_URL", url.as_str())];
    let migrated = load.during(run(&["migrate"], &only_url)).await;
    assert!(migrated.status.success(), "{migrated:?}");
    load.during(async {}).await;

    let new_ones = [
        Tender::start_with(&["serve"], &environment(binds[1])),
        Tender::start_with(&["work"], &environment(binds[1])),
    ];
    until_ready(&http, binds[1]).await;
    load.apis.push(format!("http://{}", binds[1]));
    load.during(async {}).await;

    // The old ones go, one by one.
    load.apis.remove(0);
    for mut process in old_ones.drain(..) {
        process.signal(nix::sys::signal::Signal::SIGTERM);
        let status = load.during(process.wait()).await;
        assert!(status.success(), "{}", process.log());
        let log = process.log();
        assert!(!complains(&log), "the old one complains: {log}");
    }
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let count = i64::try_from(load.made.len()).unwrap();
    within(PATIENCE, "all are synced", async || {
        let synced: i64 = sqlx::query_scalar("select count(*) from relay where synced")
            .fetch_one(&pool)
            .await
            .unwrap();
        synced == count
    })
    .await;
    assert_eq!(zooid.len(), load.made.len());
    assert_eq!(zooid.overlaps(), Vec::<String>::new());
    let failed: i64 =
        sqlx::query_scalar("select count(*) from activity where activity_type = 'fail_relay_sync'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(failed, 0);
    for process in &new_ones {
        let log = process.log();
        assert!(!complains(&log), "the new one complains: {log}");
    }
    println!("{} requests, {count} relays, none failed", load.number);
}

/// Whether a log has an error, or a statement that failed because of the schema. Other warnings may be of a
/// slow machine.
fn complains(log: &str) -> bool {
    let words = ["ERROR", "prepared statement", "cached plan", "does not exist", "violates"];
    words.iter().any(|words| log.contains(words))
}

async fn until_ready(http: &reqwest::Client, bind: &str) {
    let url = format!("http://{bind}/readyz");
    within(PATIENCE, "it is ready", async || {
        http.get(&url).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}
