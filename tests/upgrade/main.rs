//! An upgrade as an operator does it: processes of the release before go on beside those of this one,
//! on the database that this one has migrated, under load. `bin/upgrade-test` builds both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use nostr::key::Keys;
use reqwest::Method;
use support::{
    api::{header, strict},
    process::{ROBOT_SECRET, Tender, run},
    server::{Server, free_port},
    within,
};
use tender::demo::zooid::{Fault, ZooidStandIn};

/// Each phase of the load lasts so long.
const PHASE: Duration = Duration::from_secs(12);

struct Load {
    http: reqwest::Client,
    keys: Keys,
    apis: Vec<String>,
    made: Vec<String>,
    number: usize,
}

impl Load {
    /// Creates and changes relays by turns, over every API; every answer must be a success.
    async fn run(&mut self, lasts: Duration) {
        let started = Instant::now();
        let mut beat = tokio::time::interval(Duration::from_millis(20));
        while started.elapsed() < lasts {
            beat.tick().await;
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
    load.run(PHASE).await;

    // Expand: the new release's migrations, while the old one works.
    let only_url = [("DATABASE_URL", url.as_str())];
    let (migrated, ()) = tokio::join!(run(&["migrate"], &only_url), load.run(PHASE));
    assert!(migrated.status.success(), "{migrated:?}");
    load.run(PHASE).await;

    let new_ones = [
        Tender::start_with(&["serve"], &environment(binds[1])),
        Tender::start_with(&["work"], &environment(binds[1])),
    ];
    until_ready(&http, binds[1]).await;
    load.apis.push(format!("http://{}", binds[1]));
    load.run(PHASE).await;

    // The old ones go, one by one.
    load.apis.remove(0);
    for mut process in old_ones.drain(..) {
        process.signal(nix::sys::signal::Signal::SIGTERM);
        let ((), status) = tokio::join!(load.run(PHASE / 3), process.wait());
        assert!(status.success(), "{}", process.log());
        let log = process.log();
        assert!(!log.contains("ERROR") && !log.contains("WARN"), "the old one complains: {log}");
    }
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let count = i64::try_from(load.made.len()).unwrap();
    within(Duration::from_mins(1), "all are synced", async || {
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
        assert!(!log.contains("ERROR") && !log.contains("WARN"), "the new one complains: {log}");
    }
    println!("{} requests, {count} relays, none failed", load.number);
}

async fn until_ready(http: &reqwest::Client, bind: &str) {
    let url = format!("http://{bind}/readyz");
    within(Duration::from_mins(1), "it is ready", async || {
        http.get(&url).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}
